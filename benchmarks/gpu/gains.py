"""What CUDA graphs, padded batches and a second one under way gain: one engine, opened with and without."""

from __future__ import annotations

import contextlib
import functools
import statistics

import numpy as np
from gpu.checks import THREADS, rate
from gpu.results import Gain

from ran_deploy.engine.cache import CachedEngine
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.trt import SLOTS, TRT_RUNNERS
from ran_deploy.runtime.backends.trt_slot import GRAPH_CALLS, REPEATED
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.runtime.timing import measure_in_turn
from ran_deploy.workflows.engines.padding import time_padding

ROUNDS = 3


def graph_gains(backend: str, engine: CachedEngine, batches: list[np.ndarray], seconds: float) -> tuple[Gain, ...]:
    """Return for each batch how much longer a call takes without graphs, one thread calling both in turn."""
    with contextlib.ExitStack() as stack:
        runners = {
            "plain": opened(stack, backend, engine, slots=1, graphs=False),
            "captured": opened(stack, backend, engine, slots=1, graphs=True, repeated=len(batches)),
        }
        found = []
        for images in batches:
            calls = {name: functools.partial(infer, each, images) for name, each in runners.items()}
            for call in [*calls.values()] * GRAPH_CALLS:
                call()
            timings = measure_in_turn(calls, seconds)
            slow, fast = (timings[name].latency_ms.p50 for name in ("plain", "captured"))
            found.append(Gain(of="CUDA graphs", batch=len(images), threads=1, gain=slow / fast))
        return tuple(found)


def padding_gains(
    backend: str, engine: CachedEngine, image: np.ndarray, seconds: float
) -> tuple[tuple[Gain, ...], int | None]:
    """Return what batches between the sizes that graphs are kept for gain, and the bytes of the GPU that a graph takes.

    A batch queued at its own size is compared with the same one padded, and with a graph of its own.
    """
    trials = time_padding(backend, engine, image, seconds)
    padded = [
        Gain(of=f"padding to {each.size}", batch=each.batch, threads=1, gain=each.queued_ms / each.padded_ms)
        for each in trials
    ]
    batches = [np.repeat(image[None], each.batch, axis=0) for each in trials]
    own = graph_gains(backend, engine, batches, seconds)
    return (*padded, *own), bytes_of_a_graph(backend, engine, batches) if batches else None


def bytes_of_a_graph(backend: str, engine: CachedEngine, batches: list[np.ndarray]) -> int:
    """Return how much more of the GPU's memory is in use, by all processes, for each batch size that is captured."""
    with contextlib.ExitStack() as stack:
        runner = opened(stack, backend, engine, slots=1, graphs=True, repeated=len(batches))
        infer(runner, batches[0])
        before = cuda.used_bytes()
        for images in batches * GRAPH_CALLS:
            infer(runner, images)
        return (cuda.used_bytes() - before) // len(batches)


def slot_gain(backend: str, engine: CachedEngine, images: np.ndarray, seconds: float) -> Gain:
    """Return the images a second of as many batches under way as usual over those of one, by several threads."""
    threads = THREADS[-1]
    with contextlib.ExitStack() as stack:
        one, usual = (opened(stack, backend, engine, slots=slots, graphs=True) for slots in (1, SLOTS))
        rates: dict[Runner, list[float]] = {one: [], usual: []}
        for _ in range(ROUNDS):  # in turn: clocks and load change
            for runner, found in rates.items():
                found.append(rate(lambda batch, of=runner: infer(of, batch), images, threads, seconds / ROUNDS))
        gain = statistics.median(rates[usual]) / statistics.median(rates[one])
        return Gain(of=f"{SLOTS} batches under way", batch=len(images), threads=threads, gain=gain)


def opened(
    stack: contextlib.ExitStack,
    backend: str,
    engine: CachedEngine,
    *,
    slots: int,
    graphs: bool,
    repeated: int = REPEATED,
) -> Runner:
    runner = TRT_RUNNERS[backend](engine.data, traits=engine.traits, slots=slots, graphs=graphs, repeated=repeated)
    stack.callback(runner.close)
    return runner


def infer(runner: Runner, images: np.ndarray) -> np.ndarray:
    return runner.infer({INPUT: images})[OUTPUT]
