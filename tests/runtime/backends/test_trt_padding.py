"""Batches that TensorRT's runner pads, on the stand-ins of tests/stand_ins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stand_in_tensorrt import Context, engine_bytes, row_sums

from ran_deploy.engine.padding import Padding
from ran_deploy.engine.traits import EngineTraits
from ran_deploy.errors import ShapeError
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.trt_slot import REPEATED

PADDING = (Padding(least=3, size=4), Padding(least=6, size=8))


@pytest.fixture
def opened(stand_in):
    """Return what opens an engine that pads batches on a new GPU; the runners are closed after the test."""
    runners = []

    def open_it(backend: str = "tensorrt", profiles=((1, 8, 16),), **settings):
        gpu = stand_in(backend.replace("-", "_"), **settings)
        traits = EngineTraits(padding=PADDING)
        runners.append(open_runner(backend, engine_bytes(list(profiles)), traits=traits))
        return gpu, runners[-1]

    yield open_it
    for runner in runners:
        runner.close()


@pytest.fixture
def ran(monkeypatch) -> list[tuple[int, int]]:
    """Return what will hold the profile and the batch size of each batch that the engine is asked to run."""
    found, execute = [], Context.execute_async_v3

    def noted(context, stream):
        found.append((context.active_optimization_profile, context.batch))
        return execute(context, stream)

    monkeypatch.setattr(Context, "execute_async_v3", noted)
    return found


def check(runner, batch: int, seed: int = 0) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (batch, 9, 14, 3), dtype=np.uint8)
    np.testing.assert_array_equal(runner.infer({"image": images})["logits"], row_sums(images))


@pytest.mark.parametrize("integrated", [False, True])
def test_a_batch_runs_at_the_size_it_is_padded_to_and_gives_its_own_rows(opened, ran, integrated):
    _, runner = opened(integrated=integrated)
    for batch in range(1, 11):
        check(runner, batch, seed=batch)
    assert [size for _, size in ran] == [1, 2, 4, 4, 5, 8, 8, 8, 9, 10]


def test_the_size_does_not_depend_on_what_ran_before(opened, ran):
    order = [3, 7, 5, 3, 6, 1, 7, 3, 8, 4, 5, 5, 7]
    _, runner = opened()
    for seed, batch in enumerate(order):
        check(runner, batch, seed)
    expected = {1: 1, 3: 4, 4: 4, 5: 5, 6: 8, 7: 8, 8: 8}
    # Queued twice and captured once, each size that comes again: three of each at most.
    assert {size for _, size in ran} == {expected[batch] for batch in order}


def test_sizes_that_are_padded_share_one_graph(opened):
    gpu, runner = opened()
    for seed in range(4):
        for batch in (6, 7, 8):
            check(runner, batch, seed)
    assert gpu.live()["executables"] == 1
    assert gpu.calls["cudaGraphLaunch"] == 10  # all but the first two
    assert gpu.calls["execute_async_v3"] == 3


def test_a_graph_for_it_is_there_whatever_other_sizes_came_first(opened):
    gpu, runner = opened()
    for seed in range(4):
        for batch in (1, 2, 5, 9, 10, 11, 12):
            check(runner, batch, seed)
    assert gpu.live()["executables"] == REPEATED
    for seed in range(4):
        check(runner, 3, seed)
        check(runner, 7, seed)
    assert gpu.live()["executables"] == REPEATED + len(PADDING)


def test_others_keep_their_number_of_graphs(opened):
    gpu, runner = opened()
    for seed in range(4):
        for batch in (3, 7, 1, 2, 5, 9, 10, 11, 12):
            check(runner, batch, seed)
    assert gpu.live()["executables"] == REPEATED + len(PADDING)


def test_the_kernels_are_those_of_the_size_it_is_padded_to(opened, ran):
    _, runner = opened(profiles=((1, 8, 16), (8, 8, 8)))
    check(runner, 5)
    check(runner, 7)
    assert ran == [(0, 5), (1, 8)]


def test_threads_get_their_own_rows(opened):
    gpu, runner = opened(delay_s=0.003, meet=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda seed: check(runner, 1 + seed % 9, seed), range(120)))
    assert gpu.live()["streams"] == 2


def test_tensorrt_rtx_captures_the_size_it_is_padded_to(opened):
    gpu, runner = opened("tensorrt-rtx")
    for seed in range(4):
        for batch in (6, 7, 8):
            check(runner, batch, seed)
    assert gpu.calls["graphs of TensorRT-RTX"] == 1


def test_where_memory_is_short_it_is_padded_all_the_same(opened, ran, caplog):
    gpu, runner = opened()
    gpu.fail("create_execution_context", "MemoryAllocation")
    for seed in range(3):
        check(runner, 7, seed)
    assert [size for _, size in ran] == [8, 8, 8]
    assert caplog.text.count("no further batch size gets a context of its own") == 1
    assert gpu.calls["create_execution_context"] == 2  # it is not tried again


def test_a_batch_that_is_too_large_is_told_as_it_is(opened):
    _, runner = opened()
    with pytest.raises(ShapeError, match=r"\(17, 9, 14, 3\); this engine accepts \(1 to 16, 9, 14, 3\)"):
        check(runner, 17)
