"""A short look at how fast engines are, and how large: all in turn, so that other load meets them alike."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.report.details_schema import EngineSize, EngineSpeed
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.runtime.timing import Timing, measure_in_turn
from ran_deploy.workflows.engines.loading import find_engine, load_engine
from ran_deploy.workflows.evaluation.evaluators import MODEL_FILE, REFERENCE_FILE

__all__ = ["SECONDS", "engine_sizes", "engine_speeds"]

SECONDS = 2.0  # for all engines and batch sizes together
FP32 = "FP32"
CPU_BACKENDS = frozenset({"openvino", "onnxruntime"})  # an FP32 engine is made in a second, without a device

Key = tuple[str, int, str]  # backend, batch, what runs


def engine_speeds(
    bundle: Bundle, backends: Sequence[str], images: np.ndarray, *, cache_dir: Path | None, seconds: float = SECONDS
) -> tuple[EngineSpeed, ...]:
    """Time each engine at batch 1 and at its optimum, and on CPUs the FP32 graph on the same backend beside it.

    `images` are prepared, uint8 (N, H, W, 3); they are repeated as needed. Raises: what loading an engine raises.
    """
    calls: dict[Key, Callable[[], object]] = {}
    with ExitStack() as stack:
        for backend in backends:
            predictor = stack.enter_context(load_engine(bundle, backend, cache_dir=cache_dir).predictor)
            sizes = sorted({predictor.batch.minimum, predictor.batch.optimum})
            engine = predictor.infer_batch
            exact = _fp32_engine(bundle, backend, predictor.batch, stack)
            for size in sizes:
                batch = np.resize(images, (size, *images.shape[1:]))
                calls[backend, size, ""] = functools.partial(engine, batch)
                if exact is not None:
                    calls[backend, size, FP32] = functools.partial(exact, batch)
        timings = measure_in_turn(calls, seconds)
    return tuple(
        _speed(backend, size, timing, timings.get((backend, size, FP32)))
        for (backend, size, what), timing in timings.items()
        if not what
    )


def engine_sizes(bundle: Bundle, backends: Sequence[str], cache_dir: Path | None) -> tuple[EngineSize, ...]:
    """Return the sizes of each backend's engine, where there is one, of its graph and of the FP32 graph."""
    files = bundle.manifest.files
    reference = files.get(MODEL_FILE if bundle.manifest.precision is Precision.FP32 else REFERENCE_FILE)
    sizes = []
    for backend in backends:
        engine = find_engine(bundle, backend, cache_dir)
        graph = files.get(bundle.manifest.dialects[BACKENDS[backend]].graph)
        sizes.append(
            EngineSize(
                backend=backend,
                engine_bytes=len(engine.data) if engine else None,
                graph_bytes=graph.size_bytes if graph else None,
                reference_bytes=reference.size_bytes if reference else None,
            )
        )
    return tuple(sizes)


def _fp32_engine(
    bundle: Bundle, backend: str, batch: BatchProfile, stack: ExitStack
) -> Callable[[np.ndarray], object] | None:
    """Return what runs the bundle's FP32 graph on the same backend, None where that is no matter of a second."""
    if backend not in CPU_BACKENDS or REFERENCE_FILE not in bundle or bundle.manifest.precision is Precision.FP32:
        return None
    options = BuildOptions(precision=Precision.FP32, batch=batch)
    runner = open_runner(backend, open_builder(backend).build(bundle.read(REFERENCE_FILE), options))
    stack.callback(runner.close)
    return lambda images: runner.infer({INPUT: images})


def _speed(backend: str, batch: int, engine: Timing, exact: Timing | None) -> EngineSpeed:
    median = engine.latency_ms.p50
    exact_median = exact.latency_ms.p50 if exact else None
    ratios = [e / f for e, f in zip(engine.durations_ms, exact.durations_ms, strict=True)] if exact else []
    return EngineSpeed(
        backend=backend,
        batch=batch,
        runs=len(engine.durations_ms),
        median_ms=median,
        fp32_median_ms=exact_median,
        fp32_ratio=statistics.median(ratios) if ratios else None,
        noisy=engine.noisy or (exact is not None and exact.noisy),
    )
