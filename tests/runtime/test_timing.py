"""Timing by a clock of the test's own."""

from __future__ import annotations

import itertools
import statistics

import pytest

from ran_deploy.errors import ConfigError
from ran_deploy.runtime.timing import LEAST_RUNS, WARM_UP, Timing, measure, measure_in_turn


class Clock:
    """Stands still but for the runs, each of which takes what the list says next."""

    def __init__(self, durations_ms: list[float]) -> None:
        self.left = list(durations_ms)
        self.now_ns = 0

    def run(self) -> None:
        self.now_ns += int(self.left.pop(0) * 1e6)

    def __call__(self) -> int:
        return self.now_ns


def test_warm_up_runs_do_not_count():
    clock = Clock([500, 400, 1, 2, 3, 4])
    assert measure(clock.run, warm_up=2, repeats=4, clock_ns=clock).durations_ms == (1, 2, 3, 4)


def test_runs_go_on_until_both_the_number_and_the_time_are_reached():
    clock = Clock([1] * 100)
    assert len(measure(clock.run, warm_up=0, repeats=3, min_seconds=0.010, clock_ns=clock).durations_ms) == 10
    clock = Clock([50] * 100)
    assert len(measure(clock.run, warm_up=0, repeats=3, min_seconds=0.010, clock_ns=clock).durations_ms) == 3


def test_percentiles_interpolate_between_runs():
    latency = Timing(tuple(float(ms) for ms in range(100, -1, -1))).latency_ms
    assert (latency.mean, latency.p50, latency.p90, latency.p99) == (50, 50, 90, 99)


def test_throughput_counts_items_by_the_second():
    assert Timing((10.0, 30.0)).throughput(items_per_run=8) == pytest.approx(400)


def test_variation_is_deviation_over_mean_and_much_of_it_is_noise():
    durations = (10.0, 10.5, 9.5, 10.0)
    assert Timing(durations).variation == pytest.approx(statistics.pstdev(durations) / 10)
    assert not Timing(durations).noisy
    assert Timing((10.0, 10.5, 9.5, 16.0)).noisy


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warm_up": -1}])
def test_no_runs_to_measure_are_refused(wrong):
    with pytest.raises(ConfigError, match="at least 0 and 1"):
        measure(lambda: None, **wrong)


class WorkClock:
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
    clock = WorkClock()
    calls = {"fast": clock.work("fast", 1), "slow": clock.work("slow", 10)}
    timings = measure_in_turn(calls, 0, lambda: clock.now_ns)
    warm = ["fast"] * WARM_UP + ["slow"] * WARM_UP
    assert clock.order == warm + ["fast", "slow"] * LEAST_RUNS
    counted = range(WARM_UP + 1, WARM_UP + 1 + LEAST_RUNS)
    assert timings["fast"].durations_ms == pytest.approx([1.0 * n for n in counted])
    assert timings["slow"].durations_ms == pytest.approx([10.0 * n for n in counted])


def test_rounds_go_on_until_the_time_is_spent():
    clock = WorkClock()
    timings = measure_in_turn({"fast": clock.work("fast", 1)}, 0.1, lambda: clock.now_ns)
    assert sum(timings["fast"].durations_ms) >= 100
    assert sum(timings["fast"].durations_ms[:-1]) < 100


def test_nothing_to_time_takes_no_time():
    assert measure_in_turn({}, 10) == {}
