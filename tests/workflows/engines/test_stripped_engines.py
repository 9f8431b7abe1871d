"""Engines without weights, from build to load. Builder, GPU and TensorRT are stand-ins; the graph is the bundle's."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from stand_in_bundle import bundle_of_row_sums
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.commands.doctor import report_lines
from ran_deploy.converters.builders import GpuOptions
from ran_deploy.errors import ConfigError, EngineMismatchError, SelfTestError
from ran_deploy.precision import Precision
from ran_deploy.workflows.doctor import device_report
from ran_deploy.workflows.engines import building, timed_build
from ran_deploy.workflows.engines.building import build_engine
from ran_deploy.workflows.engines.loading import load_engine
from ran_deploy.workflows.triton import write_triton_model

STRIPPED = GpuOptions(strip_weights=True)


@pytest.fixture
def bundle(demo, tmp_path):
    """The demo bundle as one in FP16, whose golden logits are what the stand-in of an engine computes."""
    return bundle_of_row_sums(tmp_path / "fp16.ran", demo.bundle, precision=Precision.FP16)


@pytest.fixture
def gpu(stand_in, bundle, monkeypatch):
    """A GPU where engines are described, not built: with the weights of the graph or without."""

    def built(graph: bytes, options, progress=None) -> bytes:
        profile = [(options.batch.minimum, options.batch.optimum, options.batch.maximum)]
        stripped = graph if options.gpu.strip_weights else None
        return engine_bytes(profile, image=(*bundle.manifest.preprocessing.crop, 3), stripped=stripped)

    gpu = stand_in(delay_s=0.0)
    monkeypatch.setattr(timed_build, "open_builder", lambda backend: SimpleNamespace(build=built))
    monkeypatch.setattr(building, "inspect_engine", lambda package, data, traits: json.dumps({"Layers": [str(traits)]}))
    return gpu


def loaded(bundle, cache):
    engine = load_engine(bundle, "tensorrt", cache_dir=cache)
    with engine.predictor as predictor:
        images = np.random.default_rng(2).integers(0, 256, (3, *bundle.manifest.preprocessing.crop, 3), dtype=np.uint8)
        np.testing.assert_array_equal(predictor.infer_batch(images), row_sums(images))
    return engine


def test_it_is_proven_with_its_weights_and_gets_them_again_at_each_load(bundle, gpu, tmp_path):
    graph = bundle.read("graphs/tensorrt.onnx")
    built = build_engine(bundle, "tensorrt", cache_dir=tmp_path, gpu=STRIPPED)
    assert built.self_test.passed
    assert built.graph_bytes == len(graph)
    assert built.engine_bytes == (built.folder / "engine.plan").stat().st_size
    assert str(graph) in built.layers.layers[0].name  # the inspector is told where its weights are
    for loads in (2, 3):
        engine = loaded(bundle, tmp_path)
        assert (engine.origin, engine.self_test) == ("cache", None)
        assert gpu.calls["refit_cuda_engine"] == loads


def test_a_refit_that_gives_wrong_results_keeps_nothing(bundle, gpu, tmp_path, monkeypatch):
    def of_other_weights(graph, options, progress=None):
        model = onnx.load_from_string(graph)
        first = model.graph.initializer[0]
        first.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(first) + 1, first.name))
        return engine_bytes(
            [(1, 8, 32)], image=(*bundle.manifest.preprocessing.crop, 3), stripped=model.SerializeToString()
        )

    monkeypatch.setattr(timed_build, "open_builder", lambda backend: SimpleNamespace(build=of_other_weights))
    with pytest.raises(SelfTestError, match="failed the golden self-test and is not used"):
        build_engine(bundle, "tensorrt", cache_dir=tmp_path, gpu=STRIPPED)
    assert not list((tmp_path / bundle.digest).glob("tensorrt-*"))


def test_one_of_another_graph_is_not_used_and_the_remedy_is_told(bundle, gpu, tmp_path, caplog):
    folder = build_engine(bundle, "tensorrt", cache_dir=tmp_path, gpu=STRIPPED).folder
    entry = json.loads((folder / "entry.json").read_text())
    (folder / "entry.json").write_text(json.dumps({**entry, "graph_sha256": "0" * 64}))
    with pytest.raises(EngineMismatchError, match=r"Build one here: ran-build .* --backend tensorrt"):
        load_engine(bundle, "tensorrt", cache_dir=tmp_path)
    assert "it was built from another graph" in caplog.text


def test_an_engine_with_weights_takes_its_place(bundle, gpu, tmp_path):
    build_engine(bundle, "tensorrt", cache_dir=tmp_path, gpu=STRIPPED)
    refits = gpu.calls["refit_cuda_engine"]
    assert build_engine(bundle, "tensorrt", cache_dir=tmp_path).graph_bytes is None
    loaded(bundle, tmp_path)
    assert gpu.calls["refit_cuda_engine"] == refits


def test_doctor_says_so_and_triton_is_refused(bundle, gpu, tmp_path):
    says = "  its engine has no weights: the bundle's graph gives them at each load"
    build_engine(bundle, "tensorrt", cache_dir=tmp_path / "cache", gpu=STRIPPED)
    assert says in report_lines(device_report(bundle, tmp_path / "cache"))
    with pytest.raises(ConfigError, match="needs one that has them: build it without --strip-weights"):
        write_triton_model(bundle, "tensorrt", tmp_path / "models", cache_dir=tmp_path / "cache")
    build_engine(bundle, "tensorrt", cache_dir=tmp_path / "cache")
    assert says not in report_lines(device_report(bundle, tmp_path / "cache"))
    assert write_triton_model(bundle, "tensorrt", tmp_path / "models", cache_dir=tmp_path / "cache").name == "1"
