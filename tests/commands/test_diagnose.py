"""ran-validate --diagnose, with builders that are spoilt on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.builders.ort import OrtBuilder
from ran_deploy.converters.graph import add_constant, array_of, model_bytes, model_from_bytes
from ran_deploy.engine.cache import CachedEngine, EngineCache
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.workflows.engines.golden import Golden, read_golden

IMAGES = np.random.default_rng(2).integers(0, 256, (32, 20, 28, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(tiny, tmp_path_factory, script):
    """The small network in INT8."""
    folder = tmp_path_factory.mktemp("diagnose")
    np.savez(folder / "images.npz", images=IMAGES, labels=np.arange(32) % 7)
    options = ["--calibration-data", folder / "images.npz", *tiny.options]
    done = script(
        "ran-export", tiny.checkpoint, "-o", folder / "tiny.ran", *options, env={"PYTHONPATH": str(tiny.folder)}
    )
    assert done.returncode == 0, done.stderr
    return folder / "tiny.ran"


def convolutions(graph: bytes) -> list[str]:
    return [node.outputs[0].name for node in model_from_bytes(graph).graph if node.op_type == "Conv"]


def spoil(graph: bytes, tensor: str) -> bytes:
    """Give the first channel of a convolution's weights ten times its scale."""
    model = model_from_bytes(graph)
    for node in model.graph:
        if node.outputs[0].name == tensor:
            dequantize = node.inputs[1].producer()
            scale = array_of(dequantize.inputs[1]).copy()
            scale[0] *= 10
            dequantize.replace_input_with(1, add_constant(model.graph, "spoilt", scale))
    return model_bytes(model)


@pytest.fixture
def second(bundle):
    """The output of the second convolution."""
    return convolutions(open_bundle(bundle).read("graphs/onnxruntime.onnx"))[1]


@pytest.fixture
def spoilt_builder(monkeypatch, second):
    class Spoilt(OrtBuilder):
        def build(self, graph, options, progress=None):
            return super().build(spoil(graph, second), options, progress)

    monkeypatch.setattr("ran_deploy.converters.builders.ort.OrtBuilder", Spoilt)


@pytest.fixture
def diagnose(call, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"

    def run(*options, path=bundle):
        return call("ran-validate", path, "--diagnose", "--cache-dir", cache, *options)

    run.cache = cache
    return run


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_healthy_engine_is_said_to_be_so(backend, diagnose, tmp_path):
    outcome = diagnose("--backend", backend)
    assert outcome.status == 0, outcome.err
    assert f"{backend} int8: nothing is at fault" in outcome.out
    assert "graph against FP32" in outcome.out
    assert not (tmp_path / "tiny-diagnosis").exists()


def test_a_wrong_engine_is_told_with_its_node_and_files_that_show_it(spoilt_builder, second, diagnose, tmp_path):
    outcome = diagnose("--backend", "onnxruntime")
    assert outcome.status == 1
    assert "the engine is wrong" in outcome.out
    assert f"first wrong tensor: {second!r} (Conv " in outcome.out
    assert "<- beyond" in outcome.out
    folder = tmp_path / "tiny-diagnosis"
    assert {path.name for path in folder.iterdir()} == {
        f"tiny-onnxruntime.{kind}" for kind in ("onnx", "npz", "py", "txt")
    }
    assert second in (folder / "tiny-onnxruntime.txt").read_text()
    assert convolutions((folder / "tiny-onnxruntime.onnx").read_bytes()) == [second]
    with np.load(folder / "tiny-onnxruntime.npz") as arrays:
        assert len(arrays["input_0"]) == 1
        error = np.linalg.norm(arrays["found_0"] - arrays["expected_0"]) / np.linalg.norm(arrays["expected_0"])
        assert error > 0.1


def run_script(path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_the_script_passes_with_a_right_engine_and_fails_with_a_wrong_graph(spoilt_builder, second, diagnose, tmp_path):
    diagnose("--backend", "onnxruntime", "--diagnose-output", tmp_path / "here")
    script, graph = (tmp_path / "here" / f"tiny-onnxruntime.{kind}" for kind in ("py", "onnx"))
    assert run_script(script).returncode == 0  # the vendor's own API builds what the graph says
    graph.write_bytes(spoil(graph.read_bytes(), second))
    done = run_script(script)
    assert done.returncode == 1
    assert "relative L2" in done.stdout


def test_a_wrong_engine_in_the_cache_is_told_from_a_wrong_build(second, diagnose, bundle):
    opened = open_bundle(bundle)
    graph = spoil(opened.read("graphs/onnxruntime.onnx"), second)
    data = open_builder("onnxruntime").build(graph, BuildOptions(precision=Precision.INT8))
    here = fingerprint("onnxruntime")
    engine = CachedEngine(data=data, batch=opened.manifest.batch, required=here, proven=True)
    EngineCache(diagnose.cache, opened.digest).put("onnxruntime", here, engine)
    outcome = diagnose("--backend", "onnxruntime")
    assert outcome.status == 1
    assert "the stored engine is wrong, a fresh one right" in outcome.out
    assert "stored  golden self-test failed" in outcome.out
    assert "fresh   golden self-test passed" in outcome.out


def test_outputs_recorded_of_another_network_are_no_fault_of_the_engine(diagnose, bundle, tmp_path):
    source = open_bundle(bundle)
    golden = read_golden(source)
    files = {name: source.read(name) for name in source.manifest.files}
    wrong = {name: logits[:, ::-1] for name, logits in golden.logits.items()}
    files["golden.npz"] = Golden(inputs=golden.inputs, logits=wrong).to_bytes()
    write_bundle(tmp_path / "forged.ran", replace(source.manifest, name="forged"), files)
    outcome = diagnose("--backend", "onnxruntime", path=tmp_path / "forged.ran")
    assert outcome.status == 1
    assert "the outputs recorded at export are not what the graph gives here" in outcome.out


def test_where_no_engine_can_run_the_graph_is_still_compared_with_fp32(diagnose):
    outcome = diagnose("--backend", "tensorrt-rtx", "--json")
    (found,) = json.loads(outcome.out)
    if found["finding"] == "not run":  # no GPU here
        assert outcome.status == 0
        assert found["reason"]
        assert (found["fresh"], found["divergence"]) == (None, None)
    assert len(found["losses"]) > 3
    assert all(loss["at_output"] is not None for loss in found["losses"])


def test_json_has_every_region_of_every_backend(diagnose, bundle):
    outcome = diagnose("--backend", "all", "--json")
    found = json.loads(outcome.out)
    assert [each["backend"] for each in found] == ["tensorrt", "tensorrt-rtx", "openvino", "onnxruntime"]
    for each in found[2:]:
        assert each["finding"] == "agrees"
        regions = [region["region"] for region in each["divergence"]["regions"]]
        assert regions == [loss["region"] for loss in each["losses"]]


REFUSED = {
    "data": (["--data", "."], "--data"),
    "a report and a budget": (["--report", "x.html", "--max-drop", "1"], "--report"),
    "an output that is a file": (["--diagnose-output", __file__], "is a file"),
    "an output below a file": (["--diagnose-output", f"{__file__}/x"], "Cannot write"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case, diagnose):
    options, words = REFUSED[case]
    diagnose(*options).assert_refused(words)


def test_an_output_without_a_diagnosis_is_refused(call, bundle):
    call("ran-validate", bundle, "--diagnose-output", "x").assert_refused("add --diagnose")


def test_a_failed_self_test_points_here(spoilt_builder, call, bundle, tmp_path):
    outcome = call("ran-build", bundle, "--backend", "onnxruntime", "--cache-dir", tmp_path)
    outcome.assert_refused("failed the golden self-test", f"ran-validate {bundle} --diagnose", status=1)
