"""The stand-in engine: tests/stand_ins/stand_in_ptx.py executes the PTX of its kernels, NVIDIA's assembler takes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.errors import DeviceError, EngineMismatchError
from ran_deploy.runtime.backends.trt import TensorRtRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGE = (4, 6, 3)
A, B, C = 2654435761, 2246822519, 3266489917


@pytest.fixture
def engine_module(gpu):
    return gpu("kernel_engine")


def images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *IMAGE), dtype=np.uint8)


@pytest.mark.parametrize("rounds", [1, 3])
def test_the_closed_form_is_the_sum_that_the_kernel_s_comment_writes(engine_module, rounds):
    batch = images(3)
    sums = [
        [sum(x * (i * A + k * B + r * C) for r in range(rounds) for i, x in enumerate(row)) for k in range(10)]
        for row in batch.reshape(3, -1).tolist()  # in Python's own integers
    ]
    expected = [[value % 2**32 // 2**8 for value in row] for row in sums]
    assert engine_module.expected_logits(batch, rounds).tolist() == expected


def test_the_closed_form_holds_for_the_largest_bytes_of_a_large_image(engine_module):
    white = np.full((1, 224, 224, 3), 255, np.uint8)
    places = white.size
    expected = [255 * (places * (places - 1) // 2 * A + places * k * B) % 2**32 // 2**8 for k in range(10)]
    assert engine_module.expected_logits(white).tolist() == [expected]


@pytest.mark.parametrize("api", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("integrated", [False, True])
def test_the_kernels_give_the_closed_form_through_the_whole_runner(kernel_engine, engine_module, api, integrated):
    kernel_engine(api=api, integrated=integrated)
    runner = TensorRtRunner(engine_module.plan(IMAGE, [(1, 4, 7)], rounds=2))
    try:
        for seed in range(12):
            batch = images((3, 7, 1)[seed % 3], seed)
            logits = runner.infer({"image": batch})["logits"]
            np.testing.assert_array_equal(logits, engine_module.expected_logits(batch, 2))
    finally:
        runner.close()


def test_an_image_of_more_bytes_than_a_block_has_threads_is_summed_whole(kernel_engine, engine_module):
    kernel_engine()
    runner = TensorRtRunner(engine_module.plan((11, 17, 3), [(1, 1, 2)]))
    batch = np.random.default_rng(1).integers(0, 256, (2, 11, 17, 3), dtype=np.uint8)
    np.testing.assert_array_equal(runner.infer({"image": batch})["logits"], engine_module.expected_logits(batch))
    runner.close()


def test_a_refused_call_is_a_device_error_with_its_reason(kernel_engine, engine_module):
    kernel_engine()
    runner = TensorRtRunner(engine_module.plan(IMAGE, [(1, 4, 7)], refused=(1,)))
    runner.infer({"image": images(2)})
    with pytest.raises(DeviceError, match="one of those that the plan says to refuse"):
        runner.infer({"image": images(2)})
    np.testing.assert_array_equal(
        runner.infer({"image": images(2, 5)})["logits"], engine_module.expected_logits(images(2, 5))
    )
    runner.close()


def test_a_launch_that_fails_is_told_by_the_driver_s_own_name(kernel_engine, engine_module):
    device, _ = kernel_engine()
    runner = TensorRtRunner(engine_module.plan(IMAGE, [(1, 4, 7)]))
    device.fail("cuLaunchKernel", "LaunchFailure")
    with pytest.raises(DeviceError, match=r"cuLaunchKernel failed: CUDA_ERROR_LAUNCH_FAILED \(719\)"):
        runner.infer({"image": images(2)})
    runner.close()


def test_what_is_no_plan_is_refused(kernel_engine):
    kernel_engine()
    with pytest.raises(EngineMismatchError, match="no plan of the stand-in engine"):
        TensorRtRunner(b"ftrt")


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not here; it comes with NVIDIA's CUDA toolkit")
@pytest.mark.parametrize("target", ["sm_75", "sm_86", "sm_87", "sm_90", "sm_120"])
def test_nvidia_s_assembler_takes_the_kernels(target, tmp_path):
    source = BENCHMARKS / "gpu" / "kernel.ptx"
    command = ["ptxas", f"-arch={target}", str(source), "-o", str(tmp_path / "kernel.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
