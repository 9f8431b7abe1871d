from __future__ import annotations

import itertools

import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.validation.speed import LEAST_RUNS, WARM_UP, engine_sizes, engine_speeds, measure_in_turn

FAST, SLOW = ("a", 1, ""), ("b", 1, "")


class Clock:
    """A clock that only work moves on."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.order: list[str] = []

    def work(self, name: str, milliseconds: float):
        durations = itertools.count(1)

        def call() -> None:
            self.order.append(name)
            self.now_ns += int(1e6 * milliseconds * next(durations))

        return call


def test_calls_take_turns_and_each_is_timed_alone():
    clock = Clock()
    calls = {FAST: clock.work("fast", 1), SLOW: clock.work("slow", 10)}
    timings = measure_in_turn(calls, 0, lambda: clock.now_ns)
    warm = ["fast"] * WARM_UP + ["slow"] * WARM_UP
    assert clock.order == warm + ["fast", "slow"] * LEAST_RUNS
    counted = range(WARM_UP + 1, WARM_UP + 1 + LEAST_RUNS)
    assert timings[FAST].durations_ms == pytest.approx([1.0 * n for n in counted])
    assert timings[SLOW].durations_ms == pytest.approx([10.0 * n for n in counted])


def test_rounds_go_on_until_the_time_is_spent():
    clock = Clock()
    timings = measure_in_turn({FAST: clock.work("fast", 1)}, 0.1, lambda: clock.now_ns)
    assert sum(timings[FAST].durations_ms) >= 100
    assert sum(timings[FAST].durations_ms[:-1]) < 100


def test_nothing_to_time_takes_no_time():
    assert measure_in_turn({}, 10) == {}


def test_engines_of_a_bundle_have_speeds_beside_fp32_and_sizes(demo):
    bundle = open_bundle(demo.bundle)
    images = read_golden(bundle).inputs[:2]
    speeds = engine_speeds(bundle, ["onnxruntime", "openvino"], images, cache_dir=demo.cache, seconds=0)
    assert [(speed.backend, speed.batch) for speed in speeds] == [
        ("onnxruntime", 1), ("onnxruntime", 8), ("openvino", 1), ("openvino", 8)
    ]  # fmt: skip
    for speed in speeds:
        assert speed.runs == LEAST_RUNS
        assert speed.median_ms > 0
        assert speed.fp32_median_ms > 0
        assert speed.fp32_ratio > 0
    for size in engine_sizes(bundle, ["onnxruntime", "openvino"], demo.cache):
        assert size.graph_bytes == (bundle.path / "graphs" / f"{size.backend}.onnx").stat().st_size
        assert size.reference_bytes == (bundle.path / "reference.onnx").stat().st_size
        assert size.engine_bytes > 1e6
