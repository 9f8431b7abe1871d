"""CUDA graphs in TensorRT's runner, on the stand-ins of tests/stand_ins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.trt_slot import REPEATED


@pytest.fixture
def opened(stand_in):
    """Return what opens an engine on a new GPU; the runners are closed after the test."""
    runners = []

    def open_it(backend: str = "tensorrt", **settings):
        gpu = stand_in(backend.replace("-", "_"), **settings)
        runners.append(open_runner(backend, engine_bytes([(1, 4, 9)])))
        return gpu, runners[-1]

    yield open_it
    for runner in runners:
        runner.close()


def check(runner, batch: int, seed: int = 0) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (batch, 9, 14, 3), dtype=np.uint8)
    np.testing.assert_array_equal(runner.infer({"image": images})["logits"], row_sums(images))


@pytest.mark.parametrize("integrated", [False, True])
def test_a_batch_size_that_comes_again_is_launched_as_a_graph_from_the_third_time_on(opened, integrated):
    gpu, runner = opened(integrated=integrated)
    launches = []
    for seed in range(5):
        check(runner, 3, seed)
        launches.append(gpu.calls["cudaGraphLaunch"])
    assert launches == [0, 0, 1, 2, 3]
    assert gpu.calls["execute_async_v3"] == 3  # twice queued, once captured
    assert gpu.live()["executables"] == 1
    assert "graphs" not in gpu.live()  # what an executable was made from
    runner.close()
    assert gpu.live() == {}


def test_sizes_take_turns_each_with_its_own_graph_up_to_a_few(opened):
    gpu, runner = opened()
    for seed in range(4):
        for batch in range(1, 10):
            check(runner, batch, seed)
    assert gpu.live()["executables"] == REPEATED
    assert gpu.calls["create_execution_context"] == 1 + REPEATED


def test_threads_capture_and_launch_beside_each_other(opened):
    gpu, runner = opened(delay_s=0.004, meet=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda seed: check(runner, 1 + seed % 3, seed), range(90)))
    assert gpu.calls["cudaGraphLaunch"] > 60
    assert gpu.live()["streams"] == 2


def test_threads_make_their_contexts_one_after_the_other(opened):
    gpu, runner = opened(delay_s=0.03)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: check(runner, 1 + seed // 4, seed), range(16)))
    assert gpu.calls["create_execution_context"] >= 2 + REPEATED


@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("cudaStreamBeginCapture", "cudaStreamBeginCapture"),
        ("capture", "cudaStreamEndCapture"),
        ("cudaGraphInstantiate", "cudaGraphInstantiate"),
    ],
)
def test_where_a_capture_fails_batches_are_queued_and_it_is_said_once(opened, step, call, caplog):
    gpu, runner = opened()
    gpu.fail(step, "NotSupported")
    for seed in range(5):
        check(runner, 3, seed)
        check(runner, 5, seed)
    assert caplog.text.count("tensorrt runs without CUDA graphs, which may cost speed") == 1
    assert f"{call} failed: cudaErrorNotSupported" in caplog.text
    assert gpu.calls["cudaGraphLaunch"] == 0


def test_an_engine_that_cannot_be_captured_runs_without(opened, caplog):
    gpu, runner = opened()
    check(runner, 3)
    check(runner, 3)
    gpu.fail("execute_async_v3", "StreamCaptureUnsupported")
    check(runner, 3, 1)
    assert "without CUDA graphs" in caplog.text
    assert "StreamCaptureUnsupported" in caplog.text


def test_where_there_is_no_context_for_a_size_of_its_own_batches_are_queued_and_it_is_said_once(opened, caplog):
    gpu, runner = opened()
    for seed in range(3):
        check(runner, 3, seed)
    gpu.fail("create_execution_context", "MemoryAllocation")
    for seed in range(3):
        check(runner, 5, seed)
        check(runner, 3, seed)
    assert caplog.text.count("no further batch size gets a context of its own, which may cost speed: tensorrt") == 1
    assert gpu.live()["executables"] == 1
    assert gpu.calls["cudaGraphLaunch"] == 1 + 3


def test_pycuda_runs_without(opened, caplog):
    _, runner = opened(api="pycuda")
    for seed in range(4):
        check(runner, 3, seed)
    assert "pycuda cannot capture CUDA graphs; cuda-python can" in caplog.text


def test_tensorrt_rtx_captures_by_itself_in_contexts_of_one_shape(opened):
    gpu, runner = opened("tensorrt-rtx")
    for seed in range(4):
        for batch in (3, 5):
            check(runner, batch, seed)
    assert gpu.calls["cudaStreamBeginCapture"] == 0
    assert gpu.calls["graphs of TensorRT-RTX"] == 2
