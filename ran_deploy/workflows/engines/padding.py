"""Which batches run faster filled up to a size that runs as a CUDA graph: measured once, on the device itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ran_deploy.batch_padding import Padding, every_padding
from ran_deploy.cache import CachedEngine
from ran_deploy.engine_traits import EngineTraits
from ran_deploy.runtime.backends.trt import TRT_RUNNERS
from ran_deploy.runtime.backends.trt_slot import GRAPH_CALLS
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.runtime.timing import measure_in_turn

__all__ = ["MeasuredPadding", "PaddingTrial", "measure_padding", "time_padding"]

FASTER = 0.95  # of the time without: what is nearer is worth no change, and may be noise
SECONDS = 0.5  # of timed work for each batch size that is tried


@dataclass(frozen=True, kw_only=True)
class PaddingTrial:
    """Median milliseconds of `batch` images, queued call by call and filled up to `size` and launched as a graph."""

    batch: int
    size: int
    queued_ms: float
    filled_ms: float

    @property
    def faster(self) -> bool:
        """Whether it is worth filling up."""
        return self.filled_ms < FASTER * self.queued_ms


@dataclass(frozen=True, kw_only=True)
class MeasuredPadding:
    """What is filled up, and what was tried to find that."""

    padding: tuple[Padding, ...]
    trials: tuple[PaddingTrial, ...]


def measure_padding(backend: str, engine: CachedEngine, image: np.ndarray, seconds: float = SECONDS) -> MeasuredPadding:
    """Return for each size of `every_padding` the smallest batch that runs faster when it is filled up to it.

    The time of a batch grows with its size and that of the graph stays, so larger ones do too. `image` is prepared,
    uint8 (H, W, 3). Raises: what loading and running an engine raises.
    """
    found, trials = [], []
    with _both(backend, engine) as (queued, filled):
        for each in every_padding(engine.batch):
            low, high = each.least, each.size
            while low < high:
                batch = (low + high) // 2
                trials.append(_trial(queued, filled, image, replace(each, least=batch), engine.batch.minimum, seconds))
                low, high = (low, batch) if trials[-1].faster else (batch + 1, high)
            if low < each.size:
                found.append(replace(each, least=low))
    return MeasuredPadding(padding=tuple(found), trials=tuple(trials))


def time_padding(
    backend: str, engine: CachedEngine, image: np.ndarray, seconds: float = SECONDS
) -> tuple[PaddingTrial, ...]:
    """Return a trial of the middle batch of each padding there could be."""
    with _both(backend, engine) as (queued, filled):
        return tuple(
            _trial(
                queued, filled, image, replace(each, least=(each.least + each.size) // 2), engine.batch.minimum, seconds
            )
            for each in every_padding(engine.batch)
        )


@contextlib.contextmanager
def _both(backend: str, engine: CachedEngine) -> Iterator[tuple[Runner, Runner]]:
    """Open the engine twice: every batch queued at its own size, and every one filled up."""
    with contextlib.ExitStack() as stack:

        def opened(traits: EngineTraits) -> Runner:
            runner = TRT_RUNNERS[backend](engine.data, traits=traits, slots=1, repeated=0)
            stack.callback(runner.close)
            return runner

        everything = replace(engine.traits, padding=every_padding(engine.batch))
        yield opened(replace(engine.traits, padding=())), opened(everything)


def _trial(
    queued: Runner, filled: Runner, image: np.ndarray, padding: Padding, other: int, seconds: float
) -> PaddingTrial:
    """Time a batch of `padding.least` both ways, in turn. A batch of `other` size is queued between, as sizes vary."""

    def call(runner: Runner, batch: int) -> Callable[[], object]:
        return functools.partial(runner.infer, {INPUT: np.repeat(image[None], batch, axis=0)})

    batch = padding.least
    as_graph = call(filled, batch)
    for _ in range(GRAPH_CALLS):
        as_graph()
    keys = [("queued", batch, ""), ("filled", batch, ""), ("queued", other, "between")]
    calls = dict(zip(keys, (call(queued, batch), as_graph, call(queued, other)), strict=True))
    timings = measure_in_turn(calls, seconds)
    queued_ms, filled_ms = (timings[key].latency_ms.p50 for key in keys[:2])
    return PaddingTrial(batch=batch, size=padding.size, queued_ms=queued_ms, filled_ms=filled_ms)
