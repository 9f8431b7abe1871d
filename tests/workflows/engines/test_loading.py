from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.engine.cache import CachedEngine, EngineCache
from ran_deploy.errors import BundleError, EngineMismatchError, OutputError
from ran_deploy.manifest import BatchProfile, EngineRecord, SelfTestStatus
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.workflows.engines import building
from ran_deploy.workflows.engines import loading as engines
from ran_deploy.workflows.engines.building import build_engine
from ran_deploy.workflows.engines.loading import expand_backends, load_engine, runnable_backends

BACKEND = "onnxruntime"


@pytest.fixture
def bundle(demo):
    return open_bundle(demo.bundle)


def loaded(bundle, cache):
    engine = load_engine(bundle, BACKEND, cache_dir=cache)
    engine.predictor.close()
    return engine


def with_engine(bundle, path, data: bytes, built_on: dict[str, str], backend: str = BACKEND):
    """Write a copy of `bundle` that carries `data` as the engine of a backend."""
    record = EngineRecord(
        backend=backend,
        file=f"engines/{backend}.plan",
        fingerprint=built_on,
        batch=BatchProfile(),
        self_test=SelfTestStatus.PENDING,
    )
    files = {name: bundle.read(name) for name in bundle.manifest.files} | {f"engines/{backend}.plan": data}
    write_bundle(path, replace(bundle.manifest, engines=(record,)), files)
    return open_bundle(path)


def test_an_engine_is_built_and_proven_once_and_then_comes_from_the_cache(bundle, tmp_path):
    first, second = loaded(bundle, tmp_path), loaded(bundle, tmp_path)
    assert (first.origin, second.origin) == ("built", "cache")
    assert first.self_test is not None
    assert first.self_test.passed
    assert second.self_test is None


def test_a_damaged_cache_entry_is_built_again(bundle, tmp_path, caplog):
    folder = build_engine(bundle, BACKEND, cache_dir=tmp_path).folder
    content = bytearray((folder / "engine.plan").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "engine.plan").write_bytes(content)
    assert loaded(bundle, tmp_path).origin == "built"
    assert "damaged cache entry" in caplog.text
    assert loaded(bundle, tmp_path).origin == "cache"


def test_an_entry_of_another_version_is_passed_over(bundle, tmp_path):
    older = {**fingerprint(BACKEND), "ONNX Runtime": "1.0.0"}
    stale = CachedEngine(data=b"of an older version", batch=BatchProfile(), required=older, proven=True)
    EngineCache(tmp_path, bundle.digest).put(BACKEND, older, stale)
    assert loaded(bundle, tmp_path).origin == "built"


def test_an_engine_that_does_not_load_is_refused_with_the_command_for_this_bundle(bundle, tmp_path):
    unusable = CachedEngine(data=b"no engine", batch=BatchProfile(), required=fingerprint(BACKEND), proven=True)
    EngineCache(tmp_path, bundle.digest).put(BACKEND, fingerprint(BACKEND), unusable)
    with pytest.raises(EngineMismatchError) as error:
        load_engine(bundle, BACKEND, cache_dir=tmp_path)
    assert str(error.value).endswith(f"For this bundle: ran-build {bundle.path} --backend onnxruntime")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_engine_whose_self_test_is_broken_off_is_closed(bundle, tmp_path, monkeypatch, error):
    closed = []

    def broken_off(predictor, *rest):
        monkeypatch.setattr(predictor.runner, "close", lambda: closed.append(predictor))
        raise error

    monkeypatch.setattr(engines, "prove", broken_off)
    with pytest.raises(error):
        load_engine(bundle, BACKEND, cache_dir=tmp_path)
    assert len(closed) == 1


def test_a_cache_that_cannot_be_written_only_warns(bundle, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert loaded(bundle, tmp_path / "file" / "cache").origin == "built"
    assert "cannot write" in caplog.text
    assert "damaged" not in caplog.text


def test_a_cache_inside_a_bundle_is_refused(bundle):
    with pytest.raises(OutputError, match=r"inside the bundle .*, which never changes"):
        load_engine(bundle, BACKEND, cache_dir=bundle.path / "cache")
    assert not (bundle.path / "cache").exists()


def test_the_layers_of_an_earlier_engine_do_not_stay_beside_a_new_one(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "_inspected", lambda backend, engine: '{"Layers": ["conv \u00e9"]}')
    built = build_engine(bundle, BACKEND, cache_dir=tmp_path)
    assert built.layers.layers[0].name == "conv \u00e9"
    assert (built.folder / building.LAYERS_FILE).read_bytes() == '{"Layers": ["conv \u00e9"]}'.encode()
    monkeypatch.setattr(building, "_inspected", lambda backend, engine: None)
    assert build_engine(bundle, BACKEND, cache_dir=tmp_path).layers is None
    assert not (built.folder / building.LAYERS_FILE).exists()


def test_the_engine_in_the_bundle_is_used_where_it_fits_and_not_where_it_does_not(bundle, tmp_path):
    folder = build_engine(bundle, BACKEND, cache_dir=tmp_path / "build").folder
    data, here = (folder / "engine.plan").read_bytes(), fingerprint(BACKEND)
    fitting = with_engine(bundle, tmp_path / "fitting.ran", data, here)
    assert loaded(fitting, tmp_path / "cache").origin == "bundle"
    foreign = with_engine(bundle, tmp_path / "foreign.ran", data, {**here, "platform": "Linux riscv64"})
    assert loaded(foreign, tmp_path / "cache").origin == "built"


@pytest.mark.parametrize(("version", "code"), [("10.3.0", False), (">=10.3.0,<11", True)])
def test_an_engine_brings_code_only_if_its_record_says_so(bundle, monkeypatch, version, code):
    opened = []

    def open_runner(backend, data, **settings):
        opened.append((data, settings["traits"].host_code))
        raise EngineMismatchError("no GPU is needed to see this")

    monkeypatch.setattr(engines, "open_runner", open_runner)
    engine = CachedEngine(data=b"plan", batch=BatchProfile(), required={"tensorrt": version}, proven=True)
    with pytest.raises(EngineMismatchError):
        engines.open_predictor(bundle.manifest, "tensorrt", engine, threads=0)
    assert opened == [(b"plan", code)]


def test_a_compatible_engine_in_the_bundle_fits_where_its_ranges_say(bundle, tmp_path, monkeypatch):
    required = {"tensorrt": ">=10.3.0,<11", "platform": "Linux x86_64", "compute capability": ">=8.0"}
    wide = with_engine(bundle, tmp_path / "wide.ran", b"plan", required, backend="tensorrt")
    here = {"tensorrt": "10.16.1", "platform": "Linux x86_64", "GPU": "H200", "compute capability": "9.0"}
    monkeypatch.setattr(engines, "fingerprint", lambda backend: here)
    found = engines.find_engine(wide, "tensorrt", tmp_path / "cache")
    assert found is not None
    assert (found.data, found.required, found.proven) == (b"plan", required, False)
    monkeypatch.setattr(engines, "fingerprint", lambda backend: {**here, "tensorrt": "11.0.0"})
    assert engines.find_engine(wide, "tensorrt", tmp_path / "cache") is None


def test_auto_and_all_mean_what_can_run_here(bundle, tmp_path):
    reasons = runnable_backends(bundle, tmp_path)
    here = tuple(name for name, reason in reasons.items() if reason is None)
    assert set(here) >= {"openvino", "onnxruntime"}
    assert expand_backends(bundle, ["all", "auto"], tmp_path) == here
    assert expand_backends(bundle, ["onnxruntime", "auto"], tmp_path) == ("onnxruntime", here[0])


def test_a_backend_without_its_dialect_is_refused_with_what_to_do(bundle, tmp_path):
    dialects = {name: record for name, record in bundle.manifest.dialects.items() if name == "openvino"}
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    write_bundle(tmp_path / "x.ran", replace(bundle.manifest, dialects=dialects), files)
    with pytest.raises(BundleError, match=r"without onnxruntime; it has openvino\. Export it again with --backend"):
        load_engine(open_bundle(tmp_path / "x.ran"), BACKEND, cache_dir=tmp_path)


def test_kernels_that_tensorrt_rtx_compiles_when_it_loads_are_kept_with_the_bundle_s_engines(
    bundle, stand_in, tmp_path
):
    gpu = stand_in("tensorrt_rtx")
    here, size = fingerprint("tensorrt-rtx"), bundle.manifest.preprocessing.crop
    plan = engine_bytes([(1, 8, 32)], image=(*size, 3))
    engine = CachedEngine(data=plan, batch=BatchProfile(), required=here, proven=True)
    EngineCache(tmp_path, bundle.digest).put("tensorrt-rtx", here, engine)
    for _ in range(2):
        load_engine(bundle, "tensorrt-rtx", cache_dir=tmp_path).predictor.close()
    assert gpu.calls["compiled"] == 1
    assert [path.name[:21] for path in (tmp_path / bundle.digest).glob("*-kernels-????????????????")] == [
        "tensorrt-rtx-kernels-"
    ]


def test_a_build_keeps_the_kernels_that_its_self_test_compiled(bundle, stand_in, tmp_path, monkeypatch):
    gpu = stand_in("tensorrt_rtx")
    here, size = fingerprint("tensorrt-rtx"), bundle.manifest.preprocessing.crop
    plan = engine_bytes([(1, 8, 32)], image=(*size, 3))
    engine = CachedEngine(data=plan, batch=BatchProfile(), required=here, proven=False)
    monkeypatch.setattr(building, "engine_from_graph", lambda *_, **__: engine)
    # The stand-in computes sums, not this network's logits, and has no inspector.
    images = np.zeros((2, *size, 3), np.uint8)
    monkeypatch.setattr(building, "prove_engine", lambda _, __, predictor: predictor.infer_batch(images))
    monkeypatch.setattr(building, "inspect_engine", lambda *_, **__: '{"Layers": []}')
    build_engine(bundle, "tensorrt-rtx", cache_dir=tmp_path)
    load_engine(bundle, "tensorrt-rtx", cache_dir=tmp_path).predictor.close()
    assert gpu.calls["compiled"] == 1
