"""What the checks of the runtime share: sizes, the stand-in engine in a runner, and the closed form of its results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from gpu.driver import Driver
from gpu.kernel_engine import expected_logits, kernel_tensorrt, plan

from ran_deploy import vendors
from ran_deploy.engine.padding import Padding
from ran_deploy.engine.traits import EngineTraits
from ran_deploy.runtime.backends.trt import TensorRtRunner
from ran_deploy.runtime.backends.trt_slot import GRAPH_CALLS
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner

Figures = dict[str, float]  # what a check found, by name
THREADS = 4
CALLS = GRAPH_CALLS + 2  # of one size: queued, captured, and launched again with other images


class WrongError(Exception):
    """A check found something wrong: what it found, and what it expected."""


class NotRunError(Exception):
    """A check cannot be made here, and why."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is tried. `small` images, of an odd number of bytes, are for results and `large` ones for times."""

    driver: Driver
    captures: bool  # whether this binding can capture CUDA graphs
    small: tuple[int, int, int] = (57, 43, 3)
    large: tuple[int, int, int] = (224, 224, 3)
    sizes: tuple[int, ...] = (1, 2, 3, 5, 8, 13, 32)  # more than get a context of their own
    timed_batch: int = 64
    copied_bytes: tuple[int, ...] = (1, 255, 4097, 2**24 + 1)
    memory_bytes: int = 2**25  # that an engine asks for where memory is counted, well beyond what may stay
    seconds: float = 2.0
    leak_batches: int = 10_000
    repeats: int = 20

    def plan(
        self,
        *,
        large: bool = False,
        rounds: int = 1,
        scratch_bytes: int = 0,
        refused: Sequence[int] = (),
    ) -> bytes:
        """Return the engine: one profile for all sizes and, of small images, a narrower one."""
        most = max(self.sizes)
        profiles = [(1, self.timed_batch, self.timed_batch)] if large else [(1, 1, most), (1, 1, 1 + most // 8)]
        image = self.large if large else self.small
        return plan(image, profiles, rounds=rounds, scratch_bytes=scratch_bytes, refused=refused)


def put_in_place(driver: Driver) -> None:
    """Put the stand-in engine in the place of TensorRT, for this process."""
    sys.modules["tensorrt"] = kernel_tensorrt(driver)
    vendors.tensorrt_log.cache_clear()


@contextlib.contextmanager
def opened(
    engine: bytes,
    *,
    slots: int = 2,
    graphs: bool = True,
    mapped: bool | None = None,
    padding: tuple[Padding, ...] = (),
) -> Iterator[Runner]:
    """Open an engine as `ran_deploy` does, and close it afterwards."""
    traits = EngineTraits(padding=padding)
    runner = TensorRtRunner(engine, traits=traits, slots=slots, graphs=graphs, mapped=mapped)
    try:
        yield runner
    finally:
        runner.close()


def images(shape: tuple[int, int, int], batch: int, seed: int) -> np.ndarray:
    """Return uint8 (batch, *shape) that no other seed gives."""
    return np.random.default_rng(seed).integers(0, 256, (batch, *shape), dtype=np.uint8)


def verify(runner: Runner, batch: np.ndarray, rounds: int = 1) -> None:
    """Run a batch. Raises: WrongError unless every logit is right to the last bit."""
    require_equal(runner.infer({INPUT: batch})[OUTPUT], expected_logits(batch, rounds))


def require_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Raises: WrongError that names the first difference."""
    if found.shape != expected.shape:
        raise WrongError(f"results of shape {found.shape}; expected {expected.shape}")
    wrong = np.argwhere(found != expected)
    if len(wrong):
        place = tuple(int(index) for index in wrong[0])
        raise WrongError(
            f"{len(wrong)} of {expected.size} values of a batch of {len(expected)} are wrong, the first at {place}: "
            f"{found[place]}, expected {expected[place]}"
        )
