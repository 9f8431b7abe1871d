"""--device dla:N from a build to ran-doctor. No DLA and no TensorRT here: both are the stand-ins of tests/stand_ins."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import stand_in_tensorrt
from stand_in_bundle import bundle_of_row_sums
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.converters.builders import GpuOptions
from ran_deploy.errors import BackendUnavailableError, ConfigError, EngineMismatchError, SelfTestError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.workflows.engines import building, timed_build
from ran_deploy.workflows.load import load

HALF_PIXEL = GpuOptions(dla_core=0, half_pixel=True)
FOUR = BatchProfile(minimum=4, optimum=4, maximum=4)


@pytest.fixture
def bundle(demo, tmp_path):
    """The demo bundle as one of FP16, whose golden logits are what the stand-in for an engine computes."""
    return bundle_of_row_sums(tmp_path / "half.ran", demo.bundle, precision=Precision.FP16)


@pytest.fixture
def build(bundle, monkeypatch, tmp_path):
    """Return what builds the stand-in's engine, which TensorRT alone could build, and keeps it as ran-build does."""

    class Builder:
        def build(self, graph, options, progress=None):
            batch = options.batch
            size = (batch.minimum, batch.optimum, batch.maximum)
            return engine_bytes([size], image=(*bundle.manifest.preprocessing.crop, 3), dynamic=len(set(size)) > 1)

    monkeypatch.setattr(timed_build, "open_builder", lambda backend: Builder())
    monkeypatch.setattr(building, "dla_layers", lambda backend, graph, options: ())
    monkeypatch.setattr(building, "_inspected", lambda backend, engine: None)

    def run(gpu: GpuOptions | None = None, batch: BatchProfile = FOUR):
        return building.build_engine(bundle, "tensorrt", cache_dir=tmp_path, batch=batch, gpu=gpu)

    return run


def loaded_batch(bundle, tmp_path, device: str | None) -> BatchProfile:
    with load(bundle.path, "tensorrt", cache_dir=tmp_path, device=device) as predictor:
        return predictor.batch


def test_an_engine_for_dla_runs_on_the_core_asked_for_whatever_core_it_was_built_for(bundle, build, stand_in, tmp_path):
    gpu = stand_in(dla_cores=2)
    assert build(GpuOptions(dla_core=0)).self_test.passed
    assert gpu.loaded_on == [0]
    images = np.random.default_rng(0).integers(0, 256, (6, *bundle.manifest.preprocessing.crop, 3), dtype=np.uint8)
    for device, core in (("dla:1", 1), ("dla", 0)):
        with load(bundle.path, "tensorrt", cache_dir=tmp_path, device=device) as predictor:
            np.testing.assert_array_equal(predictor.infer_batch(images), row_sums(images))
        assert gpu.loaded_on[-1] == core


def test_engines_for_dla_and_for_the_gpu_are_kept_and_used_apart(bundle, build, stand_in, tmp_path):
    gpu = stand_in(dla_cores=2)
    assert build(GpuOptions(dla_core=1)).folder.is_dir()
    with pytest.raises(EngineMismatchError, match=r"no tensorrt engine\. Build one here: .*--backend tensorrt\.$"):
        loaded_batch(bundle, tmp_path, None)
    wide = BatchProfile(minimum=1, optimum=2, maximum=8)
    build(batch=wide)
    assert loaded_batch(bundle, tmp_path, None) == wide
    assert gpu.loaded_on[-1] == -1
    assert loaded_batch(bundle, tmp_path, "dla:1") == FOUR
    assert gpu.loaded_on[-1] == 1


def test_the_gpus_engine_does_not_stand_for_the_one_for_dla(bundle, build, stand_in, tmp_path):
    stand_in(dla_cores=2)
    build(batch=bundle.manifest.batch)
    with pytest.raises(EngineMismatchError) as error:
        loaded_batch(bundle, tmp_path, "dla:1")
    assert str(error.value) == (
        f"There is no tensorrt engine of {bundle.path} for DLA here. Build one here: "
        f"ran-build {bundle.path} --backend tensorrt --device dla:1 --batch 8:8:8."
    )
    with pytest.raises(ConfigError, match=r"No engine of .* runs on dla:1\. tensorrt: There is no"):
        load(bundle.path, cache_dir=tmp_path, device="dla:1")


@pytest.mark.parametrize(
    ("cores", "message"),
    [
        (2, r"^There is no DLA core dla:2; this device has 2\. Choose of dla:0, dla:1\.$"),
        (0, r"finds no DLA core here: Jetson Orin has them, .* Leave --device out to use the GPU\.$"),
    ],
)
def test_a_core_that_is_not_there_is_refused_with_how_many_there_are(bundle, stand_in, tmp_path, cores, message):
    stand_in(dla_cores=cores)
    with pytest.raises(BackendUnavailableError, match=message) as error:
        load(bundle.path, "tensorrt", cache_dir=tmp_path, device="dla:2")
    assert "\n" not in str(error.value)


def test_a_predictor_stays_on_its_core_and_the_next_is_on_the_gpu_again(bundle, build, stand_in, tmp_path):
    gpu = stand_in(dla_cores=1)
    build(GpuOptions(dla_core=0))
    build()
    with load(bundle.path, cache_dir=tmp_path, device="dla:0"), load(bundle.path, "tensorrt", cache_dir=tmp_path):
        assert gpu.loaded_on[-2:] == [0, -1]


def test_every_command_says_which_engine_computes_with_half_pixels(
    bundle, build, stand_in, tmp_path, call, demo, monkeypatch
):
    stand_in(dla_cores=2)
    assert build(HALF_PIXEL).half_pixel
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    common = ["--device", "dla:1", "--cache-dir", tmp_path]
    inferred = call("ran-infer", bundle.path, demo.images, "--backend", "tensorrt", *common)
    assert "(tensorrt, with half-pixel sample points)" in inferred.err
    timed = ["ran-bench", bundle.path, "--backend", "tensorrt", "--seconds", 0.01, *common]
    assert "tensorrt, with half-pixel sample points: its outputs are not those" in call(*timed).out
    assert json.loads(call(*timed, "--json").out)["rows"][0]["half_pixel"] is True
    validated = ["ran-validate", bundle.path, "--backend", "tensorrt", *common]
    assert call(*validated).out.startswith("tensorrt fp16, with half-pixel sample points\n")
    device = json.loads(call(*validated, "--json").out)["engines"][0]["device"]
    assert (device["accelerator"], device["sample points"]) == ("DLA", "half-pixel")
    doctor = ["ran-doctor", bundle.path, "--cache-dir", tmp_path]
    lines = call(*doctor).out.splitlines()
    assert "tensorrt --device dla:N: proven, with half-pixel sample points" in lines
    assert "tensorrt: no engine" in lines
    assert json.loads(call(*doctor, "--json").out)["dla"]["half_pixel"] is True


def test_another_batch_than_dla_takes_is_refused_with_the_build_for_it(bundle, build, stand_in, tmp_path, call, demo):
    stand_in(dla_cores=2)
    build(GpuOptions(dla_core=0))
    common = ["--backend", "tensorrt", "--device", "dla:1", "--cache-dir", tmp_path, "--batch", 6]
    remedy = f"ran-build {bundle.path} --backend tensorrt --device dla:1 --batch 6:6:6."
    call("ran-bench", bundle.path, *common).assert_refused("takes batches of 4 to 4, not 6", remedy)
    call("ran-infer", bundle.path, demo.images, *common).assert_refused("build it with --batch 6:6:6.")


def test_an_engine_of_the_network_itself_is_said_to_be_nothing_else(bundle, build, stand_in, tmp_path, call, demo):
    stand_in(dla_cores=2)
    build(GpuOptions(dla_core=0))
    common = ["--backend", "tensorrt", "--device", "dla:0", "--cache-dir", tmp_path]
    inferred = call("ran-infer", bundle.path, demo.images, *common)
    assert "(tensorrt)" in inferred.err
    assert "sample points" not in call("ran-validate", bundle.path, *common, "--json").out
    assert (
        json.loads(call("ran-doctor", bundle.path, "--cache-dir", tmp_path, "--json").out)["dla"]["half_pixel"] is False
    )


def test_a_half_pixel_engine_that_fails_its_self_test_is_told_what_to_do(build, bundle, stand_in, monkeypatch):
    stand_in(dla_cores=1)
    monkeypatch.setattr(stand_in_tensorrt, "row_sums", lambda images: -row_sums(images))
    with pytest.raises(SelfTestError, match="than the test allows: build it without --half-pixel"):
        build(HALF_PIXEL)


def test_diagnose_refuses_dla(call, demo):
    call("ran-validate", demo.bundle, "--diagnose", "--device", "dla:0").assert_refused("Leave --device dla:0 out.")
