"""--device, with stand-ins for the GPUs, the CUDA binding and an engine."""

from __future__ import annotations

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.bundle import open_bundle
from ran_deploy.engine.cache import CachedEngine, EngineCache
from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.workflows.bench import BenchConfig, bench_bundle
from ran_deploy.workflows.diagnose import DiagnoseConfig, diagnose_bundle
from ran_deploy.workflows.engines.device_choice import device_from_text, using_device
from ran_deploy.workflows.engines.loading import load_engine
from ran_deploy.workflows.load import load


@pytest.fixture
def bundle(demo):
    return open_bundle(demo.bundle)


def keep_engine(bundle, cache) -> None:
    """Put the stand-in's engine, as proven, into the cache of the current device."""
    height, width = bundle.manifest.preprocessing.crop
    data = engine_bytes([(1, 8, 32)], image=(height, width, 3))
    here = fingerprint("tensorrt")
    engine = CachedEngine(data=data, batch=BatchProfile(minimum=1, optimum=8, maximum=32), required=here, proven=True)
    EngineCache(cache, bundle.digest).put("tensorrt", here, engine)


@pytest.mark.parametrize(
    ("text", "gpu", "dla_core"),
    [
        ("cuda", 0, None),
        ("cuda:0", 0, None),
        ("cuda:13", 13, None),
        ("dla", None, 0),
        ("dla:0", None, 0),
        ("dla:1", None, 1),
    ],
)
def test_a_device_has_a_number(text, gpu, dla_core):
    device = device_from_text(text)
    assert (device.gpu, device.dla_core) == (gpu, dla_core)


@pytest.mark.parametrize("text", ["cpu", "cuda:", "cuda:-1", "cuda:x", "1", "CUDA:0", "cuda:0 ", "", "dla:", "dla:x"])
def test_what_is_no_device_is_refused_with_what_is_expected(text):
    with pytest.raises(ConfigError, match=r"cuda, or cuda:N such as cuda:1; or a DLA core: dla:N such as dla:0\."):
        device_from_text(text)


def test_a_predictor_is_opened_and_stays_on_the_gpu_asked_for(bundle, stand_in, tmp_path):
    gpu = stand_in()
    with cuda.on_device(1):
        keep_engine(bundle, tmp_path)
    with load(bundle.path, "tensorrt", cache_dir=tmp_path, device="cuda:1") as predictor:
        images = np.random.default_rng(0).integers(0, 256, (3, *bundle.manifest.preprocessing.crop, 3), dtype=np.uint8)
        np.testing.assert_array_equal(predictor.infer_batch(images), row_sums(images))
        assert {stream.device for stream in gpu.streams.values()} == {1}
    assert gpu.used_devices == {1}


def test_auto_takes_a_gpu_or_says_why_there_is_none(bundle, stand_in, tmp_path, monkeypatch):
    stand_in()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # the bundle holds an engine for it
    with (
        pytest.raises(ConfigError, match=r"runs on cuda:1\. tensorrt: .*ran-build .* --backend tensorrt"),
        using_device("cuda:1", bundle, ["auto"], tmp_path),
    ):
        pass
    with cuda.on_device(1):
        keep_engine(bundle, tmp_path)
    with using_device("cuda:1", bundle, ["auto"], tmp_path):
        assert cuda.current_index() == 1
        loaded = load_engine(bundle, cache_dir=tmp_path)
    assert loaded.predictor.backend == "tensorrt"
    loaded.predictor.close()


def test_a_gpu_that_is_not_there_and_an_engine_of_the_cpu_are_refused_in_one_line(bundle, stand_in, tmp_path):
    stand_in()
    for device, backends, error, message in (
        (
            "cuda:2",
            ["tensorrt"],
            BackendUnavailableError,
            "There is no GPU cuda:2; this machine has cuda:0 (stand-in GPU 0)",
        ),
        ("cuda:1", ["openvino"], ConfigError, "--device cuda:1 is a GPU, and openvino runs on the CPU. Leave --device"),
    ):
        with pytest.raises(error, match=re.escape(message)) as raised, using_device(device, bundle, backends, tmp_path):
            pass
        assert "\n" not in str(raised.value)


def test_bench_measures_on_the_gpu_asked_for(bundle, stand_in, tmp_path):
    gpu = stand_in(delay_s=0.0)
    with cuda.on_device(1):
        keep_engine(bundle, tmp_path)
    config = BenchConfig(bundle=bundle.path, device="cuda:1", batches=(2,), seconds=0.001, cache_dir=tmp_path)
    assert [row.backend for row in bench_bundle(config).rows] == ["tensorrt"]
    assert gpu.used_devices == {1}
    with pytest.raises(ConfigError, match="onnxruntime runs on the CPU"):
        bench_bundle(replace(config, backends=("onnxruntime",)))


def test_diagnose_runs_the_stored_engine_on_the_gpu_asked_for(bundle, stand_in, tmp_path):
    gpu = stand_in(delay_s=0.0)

    def keep_for_the_second() -> None:
        with cuda.on_device(1):
            keep_engine(bundle, tmp_path)

    with ThreadPoolExecutor() as other_thread:  # this one stays on the first GPU
        other_thread.submit(keep_for_the_second).result()
    config = DiagnoseConfig(bundle=bundle.path, backends=("tensorrt",), device="cuda:1", cache_dir=tmp_path)
    (found,) = diagnose_bundle(config)
    assert found.stored.self_test is not None
    assert gpu.used_devices == {1}


@pytest.mark.parametrize(
    "command",
    [
        ["ran-infer", "{bundle}", "{images}"],
        ["ran-bench", "{bundle}"],
        ["ran-validate", "{bundle}"],
        ["ran-validate", "{bundle}", "--diagnose"],
        ["ran-build", "{bundle}"],
    ],
)
def test_every_command_refuses_a_gpu_for_the_cpu_s_engine_and_an_unknown_one(script, demo, command, tmp_path):
    name, *words = (word.format(bundle=demo.bundle, images=demo.images) for word in command)
    for backend, device, message in (
        ("onnxruntime", "cuda:1", "--device cuda:1 is a GPU, and onnxruntime runs on the CPU."),
        ("tensorrt", "gpu", "--device is 'gpu'; expected a GPU: cuda, or cuda:N such as cuda:1; or a DLA"),
    ):
        done = script(name, *words, "--backend", backend, "--device", device, "--cache-dir", tmp_path)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
