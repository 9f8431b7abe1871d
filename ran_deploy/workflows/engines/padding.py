"""Which batches run faster padded to a size that runs as a CUDA graph: measured once, on the device itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ran_deploy.engine.cache import CachedEngine
from ran_deploy.engine.padding import Padding, every_padding
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
    """Median milliseconds of `batch` images, queued call by call and padded to `size` and launched as a graph."""

    batch: int
    size: int
    queued_ms: float
    padded_ms: float

    @property
    def faster(self) -> bool:
        """Whether it is worth padding."""
        return self.padded_ms < FASTER * self.queued_ms


@dataclass(frozen=True, kw_only=True)
class MeasuredPadding:
    """What is padded, and what was tried to find that."""

    padding: tuple[Padding, ...]
    trials: tuple[PaddingTrial, ...]


def measure_padding(backend: str, engine: CachedEngine, image: np.ndarray, seconds: float = SECONDS) -> MeasuredPadding:
    """Return for each size of `every_padding` the smallest batch that runs faster when it is padded to it.

    The time of a batch grows with its size and that of the graph stays, so larger ones do too. `image` is prepared,
    uint8 (H, W, 3). Raises: what loading and running an engine raises.
    """
    found, trials = [], []
    with _timer(backend, engine, image, seconds) as timer:
        for each in every_padding(engine.batch):
            low, high = each.least, each.size
            while low < high:
                batch = (low + high) // 2
                trials.append(timer.trial(batch, each.size))
                low, high = (low, batch) if trials[-1].faster else (batch + 1, high)
            if low < each.size:
                found.append(replace(each, least=low))
    return MeasuredPadding(padding=tuple(found), trials=tuple(trials))


def time_padding(
    backend: str, engine: CachedEngine, image: np.ndarray, seconds: float = SECONDS
) -> tuple[PaddingTrial, ...]:
    """Return a trial of the middle batch of each padding there could be. `image` as for `measure_padding`."""
    with _timer(backend, engine, image, seconds) as timer:
        return tuple(timer.trial((each.least + each.size) // 2, each.size) for each in every_padding(engine.batch))


@dataclass(frozen=True, kw_only=True)
class _Timer:
    """One engine, opened to queue every batch at its own size, and to pad every one."""

    queued: Runner
    padded: Runner
    image: np.ndarray
    other: int  # a batch of this size is queued between, as sizes vary where they are worth padding
    seconds: float

    def trial(self, batch: int, size: int) -> PaddingTrial:
        """Time a batch both ways, in turn; `size` is what it is padded to."""
        as_graph = self._call(self.padded, batch)
        for _ in range(GRAPH_CALLS):
            as_graph()
        calls = {
            "queued": self._call(self.queued, batch),
            "padded": as_graph,
            "between": self._call(self.queued, self.other),
        }
        timings = measure_in_turn(calls, self.seconds)
        queued_ms, padded_ms = (timings[name].latency_ms.p50 for name in ("queued", "padded"))
        return PaddingTrial(batch=batch, size=size, queued_ms=queued_ms, padded_ms=padded_ms)

    def _call(self, runner: Runner, batch: int) -> Callable[[], object]:
        return functools.partial(runner.infer, {INPUT: np.repeat(self.image[None], batch, axis=0)})


@contextlib.contextmanager
def _timer(backend: str, engine: CachedEngine, image: np.ndarray, seconds: float) -> Iterator[_Timer]:
    with contextlib.ExitStack() as stack:

        def opened(padding: tuple[Padding, ...]) -> Runner:
            traits = replace(engine.traits, padding=padding)
            runner = TRT_RUNNERS[backend](engine.data, traits=traits, slots=1, repeated=0)
            stack.callback(runner.close)
            return runner

        yield _Timer(
            queued=opened(()),
            padded=opened(every_padding(engine.batch)),
            image=image,
            other=engine.batch.minimum,
            seconds=seconds,
        )
