"""Measuring how long something takes, and whether the machine was quiet enough to believe it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ran_deploy.errors import ConfigError

__all__ = ["LEAST_RUNS", "NOISY_VARIATION", "WARM_UP", "Latency", "Timing", "measure", "measure_in_turn"]

NOISY_VARIATION = 0.10  # standard deviation over mean
WARM_UP = 1  # of calls that are timed in turn
LEAST_RUNS = 3
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Mean and percentiles over all runs, in one unit."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Timing:
    """The duration of each run, in milliseconds, in the order they were made."""

    durations_ms: tuple[float, ...]

    @property
    def latency_ms(self) -> Latency:
        p50, p90, p99 = np.percentile(self.durations_ms, [50, 90, 99]).tolist()
        return Latency(mean=float(np.mean(self.durations_ms)), p50=p50, p90=p90, p99=p99)

    @property
    def variation(self) -> float:
        """Coefficient of variation: standard deviation over mean."""
        return float(np.std(self.durations_ms) / np.mean(self.durations_ms))

    @property
    def noisy(self) -> bool:
        """Whether the variation is beyond NOISY_VARIATION: other load or a throttled processor."""
        return self.variation > NOISY_VARIATION

    def throughput(self, items_per_run: int) -> float:
        """Return items a second over all runs, `items_per_run` in each."""
        return items_per_run * len(self.durations_ms) * 1000 / sum(self.durations_ms)


def measure(
    run: Callable[[], object],
    *,
    warm_up: int = 3,
    repeats: int = 20,
    min_seconds: float = 0.0,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Timing:
    """Time single calls of `run`, after `warm_up` calls that do not count.

    At least `repeats` calls are timed, and as many more as `min_seconds` of timed work take. Raises: ConfigError.
    """
    if repeats < 1 or warm_up < 0:
        raise ConfigError(f"Found {warm_up} warm-up runs and {repeats} repeats; at least 0 and 1 are needed.")
    for _ in range(warm_up):
        run()
    durations_ns: list[int] = []
    total_ns = 0
    while len(durations_ns) < repeats or total_ns < min_seconds * 1e9:
        start = clock_ns()
        run()
        durations_ns.append(clock_ns() - start)
        total_ns += durations_ns[-1]
    return Timing(tuple(ns / 1e6 for ns in durations_ns))


def measure_in_turn(
    calls: Mapping[Key, Callable[[], object]], seconds: float, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> dict[Key, Timing]:
    """Time every call once a round, round after round, for about `seconds` of timed work and at least LEAST_RUNS."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    durations: dict[Key, list[float]] = {key: [] for key in calls}
    total_ns, rounds = 0, 0
    while calls and (rounds < LEAST_RUNS or total_ns < seconds * 1e9):
        for key, call in calls.items():
            start = clock_ns()
            call()
            spent = clock_ns() - start
            durations[key].append(spent / 1e6)
            total_ns += spent
        rounds += 1
    return {key: Timing(tuple(found)) for key, found in durations.items()}
