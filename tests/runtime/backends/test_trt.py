"""TensorRT's runner. Nothing here runs a network: engines and GPU are the stand-ins of tests/stand_ins."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.errors import BackendUnavailableError, DeviceError, EngineMismatchError, RanDeployError, ShapeError
from ran_deploy.runtime.backends import open_runner, unavailable_reason
from ran_deploy.runtime.backends.trt import TensorRtRunner
from ran_deploy.runtime.pipeline import run_pipeline
from ran_deploy.runtime.sources import ArraySource

PROFILE = [(1, 3, 7)]


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_without_package_driver_or_gpu_opening_says_which_in_one_line(backend):
    reason = unavailable_reason(backend)
    if reason is None:
        pytest.skip("it runs here")
    with pytest.raises(BackendUnavailableError) as error:
        open_runner(backend, b"")
    assert str(error.value) == reason
    assert "\n" not in reason


def images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, 9, 14, 3), dtype=np.uint8)


@pytest.fixture
def open_engine(stand_in):
    """Return what opens an engine on a new GPU; the runners are closed after the test."""
    opened = []

    def open_it(profiles=PROFILE, *, backend: str = "tensorrt", dynamic: bool = True, **settings):
        gpu = stand_in(backend.replace("-", "_"), **settings)
        opened.append(open_runner(backend, engine_bytes(profiles, dynamic=dynamic)))
        return gpu, opened[-1]

    yield open_it
    for runner in opened:
        runner.close()


def logits_of(runner, batch: np.ndarray) -> np.ndarray:
    return runner.infer({"image": batch})["logits"]


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_every_thread_gets_the_sums_of_its_own_images(open_engine, backend):
    _, runner = open_engine(backend=backend)
    batches = [images(1 + seed % 7, seed) for seed in range(48)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda batch: logits_of(runner, batch), batches))
    for batch, logits in zip(batches, results, strict=True):
        np.testing.assert_array_equal(logits, row_sums(batch))


@pytest.mark.parametrize(("call", "after"), [("execute_async_v3", 0), ("cudaMemcpyAsync", 0), ("cudaMemcpyAsync", 1)])
def test_a_call_that_fails_leaves_nothing_in_flight_and_the_next_one_works(open_engine, call, after):
    gpu, runner = open_engine(delay_s=0.05)
    gpu.fail(call, "LaunchFailure", after=after)
    with pytest.raises(DeviceError) as error:
        logits_of(runner, images(3))
    assert gpu.pending() == 0
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(logits_of(runner, images(3)), row_sums(images(3)))


def test_a_kernel_that_fails_is_a_device_error_and_everything_is_released(open_engine):
    gpu, runner = open_engine()
    gpu.fail("kernel", "IllegalAddress")
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        logits_of(runner, images(3))
    runner.close()
    assert gpu.live() == {}


def test_one_buffer_that_cannot_be_freed_does_not_keep_the_others(open_engine, caplog):
    gpu, runner = open_engine()
    gpu.fail("cudaFree", "InvalidValue")
    runner.close()
    assert gpu.live() == {"memory": 1}
    assert "cudaFree failed" in caplog.text
    gpu.blocks.clear()


def test_a_gpu_that_fails_while_closing_does_not_hide_what_went_before(open_engine, caplog):
    gpu, runner = open_engine()
    with pytest.raises(KeyError, match="before"):  # noqa: PT012  as a with statement closes
        try:
            raise KeyError("before")
        finally:
            gpu.fail("cudaSetDevice", "IllegalAddress")
            runner.close()
    assert "closing the engine: cudaSetDevice failed: cudaErrorIllegalAddress" in caplog.text
    runner.close()
    assert gpu.live() == {}


def test_what_opening_had_allocated_is_released_when_it_fails(stand_in):
    gpu = stand_in()
    gpu.fail("cudaMalloc", "MemoryAllocation", after=1)
    with pytest.raises(DeviceError, match="cudaMalloc failed: cudaErrorMemoryAllocation"):
        open_runner("tensorrt", engine_bytes(PROFILE))
    assert gpu.live() == {}


def test_closing_waits_for_the_call_under_way(open_engine):
    gpu, runner = open_engine(delay_s=0.2)
    results = []
    thread = threading.Thread(target=lambda: results.append(logits_of(runner, images(2))))
    thread.start()
    while not gpu.pending():
        pass
    runner.close()
    thread.join()
    np.testing.assert_array_equal(results[0], row_sums(images(2)))
    assert gpu.live() == {}
    with pytest.raises(RanDeployError, match="closed"):
        logits_of(runner, images(2))


def test_a_runner_stays_on_the_device_it_was_opened_on_whatever_thread_calls(stand_in):
    gpu = stand_in()
    gpu.device = 1
    runner = open_runner("tensorrt", engine_bytes(PROFILE))
    gpu.device = 0
    with ThreadPoolExecutor(2) as pool:
        for logits in pool.map(lambda _: logits_of(runner, images(2)), range(4)):
            np.testing.assert_array_equal(logits, row_sums(images(2)))
    np.testing.assert_array_equal(logits_of(runner, images(2)), row_sums(images(2)))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(runner.close).result()
    assert gpu.live() == {}


def test_a_batch_is_run_where_any_profile_holds_it(open_engine):
    _, runner = open_engine([(4, 4, 4), (1, 2, 9)])
    for batch in (1, 4, 9):
        np.testing.assert_array_equal(logits_of(runner, images(batch)), row_sums(images(batch)))
    with pytest.raises(
        ShapeError,
        match=r"'image' has shape \(10, 9, 14, 3\); this engine accepts \(4, 9, 14, 3\) or \(1 to 9, 9, 14, 3\)",
    ):
        logits_of(runner, images(10))
    with pytest.raises(ShapeError, match=r"has shape \(2, 9, 14, 4\)"):
        logits_of(runner, np.zeros((2, 9, 14, 4), np.uint8))


def test_an_engine_of_a_fixed_batch_runs(open_engine):
    _, runner = open_engine([(4, 4, 4)], dynamic=False)
    np.testing.assert_array_equal(logits_of(runner, images(4)), row_sums(images(4)))


def test_a_damaged_plan_is_refused_with_the_reason_and_the_remedy(stand_in):
    gpu = stand_in()
    with pytest.raises(EngineMismatchError, match=r"the plan is damaged.*Build it on this machine with ran-build"):
        open_runner("tensorrt", b"plan")
    assert gpu.live() == {}


def overlapped(runner, threads: int = 4, batches: int = 24) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for seed, logits in enumerate(pool.map(lambda seed: logits_of(runner, images(3, seed)), range(batches))):
            np.testing.assert_array_equal(logits, row_sums(images(3, seed)))


def test_two_batches_compute_at_once_and_never_more(open_engine):
    gpu, runner = open_engine(meet=2)
    overlapped(runner)
    assert gpu.running["most"] == 2
    assert gpu.live()["streams"] == 2


def test_the_pipeline_keeps_two_batches_under_way_and_the_order(open_engine):
    gpu, runner = open_engine(meet=2)
    pictures = images(30)
    sources = [ArraySource(f"{i}", picture) for i, picture in enumerate(pictures)]
    results = run_pipeline(
        sources, prepare=lambda image: image, infer=lambda batch: logits_of(runner, batch), batch=4, decode_threads=2
    )
    np.testing.assert_array_equal(np.stack([result.logits for result in results]), row_sums(pictures))
    assert gpu.running["most"] == 2


def test_one_thread_needs_the_memory_of_one_batch(open_engine):
    gpu, runner = open_engine()
    for batch in (7, 1, 4):
        logits_of(runner, images(batch))
    assert gpu.live() == {"streams": 1, "memory": 5}  # scratch, and image and logits on both sides
    rows = 7 * (9 * 14 * 3 + 10 * 4)
    assert gpu.allocated() == rows + 7 * 1024  # of the stand-in's engine


def test_where_memory_is_short_one_slot_serves_every_thread(open_engine, caplog):
    gpu, runner = open_engine(memory_bytes=15_000)  # a slot takes 10094
    overlapped(runner)
    assert gpu.live()["streams"] == 1
    assert caplog.text.count("so batches wait for each other: cudaMalloc failed: cudaErrorMemoryAllocation") == 1


@pytest.mark.parametrize("api", ["cuda-python", "pycuda"])
def test_an_integrated_gpu_works_on_the_host_s_memory_without_copies(open_engine, api):
    gpu, runner = open_engine(integrated=True, api=api, meet=2)
    overlapped(runner)
    assert gpu.calls["cudaMemcpyAsync"] + gpu.calls["cuMemcpyHtoDAsync"] == 0
    assert gpu.allocated() == gpu.live()["streams"] * 7 * 1024  # scratch alone


def test_a_discrete_gpu_copies_page_locked_memory_alone(open_engine):
    gpu, runner = open_engine()
    overlapped(runner)
    assert gpu.calls["cudaMemcpyAsync"] >= 2 * 2  # and more in graphs
    assert gpu.calls["pageable copies"] == 0


def test_a_runner_over_pycuda_serves_threads_on_its_own_device(stand_in):
    from ran_deploy.runtime import cuda

    gpu = stand_in(api="pycuda")
    with cuda.on_device(1):
        runner = open_runner("tensorrt", engine_bytes(PROFILE))
    overlapped(runner)
    runner.close()
    assert gpu.live() == {}


def test_each_batch_takes_the_narrowest_profile_that_holds_it(open_engine, monkeypatch):
    from stand_in_tensorrt import Context

    chosen = []
    queue = Context.execute_async_v3

    def noted(context, stream):
        chosen.append((context.batch, context.active_optimization_profile))
        return queue(context, stream)

    monkeypatch.setattr(Context, "execute_async_v3", noted)
    _, runner = open_engine([(1, 8, 32), (8, 8, 8), (1, 1, 1), (1, 2, 4)])
    for batch in (8, 1, 3, 7, 9, 8):
        np.testing.assert_array_equal(logits_of(runner, images(batch)), row_sums(images(batch)))
    assert chosen == [(8, 1), (1, 2), (3, 3), (7, 0), (9, 0), (8, 1)]


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_copies_or_none_can_be_asked_for_on_any_gpu(stand_in, integrated, mapped):
    gpu = stand_in(integrated=integrated)
    runner = TensorRtRunner(engine_bytes(PROFILE), mapped=mapped)
    np.testing.assert_array_equal(logits_of(runner, images(3)), row_sums(images(3)))
    runner.close()
    assert gpu.calls["cudaMemcpyAsync"] == (0 if mapped else 2)
