"""One bundle on one backend, from loading the engine to the last check: what fails is noted, and the rest goes on."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from gpu.checks import accuracy, builds, leak, overlaps
from gpu.gains import graph_gains, padding_gains, slot_gain
from gpu.peers import PEERS, TRTEXEC, Setting, trtexec_rows
from gpu.results import EngineResult, Gain, Timed
from gpu.variants import VARIANTS, variants

from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders.engine_layers import EngineLayers, layers_from_inspector
from ran_deploy.converters.builders.trt_inspector import inspect_engine
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.runtime.timing import Timing, measure_in_turn
from ran_deploy.vendors import one_line
from ran_deploy.workflows.engines.building import build_engine
from ran_deploy.workflows.engines.golden import golden_result, read_golden
from ran_deploy.workflows.engines.loading import BUILT_ON_REQUEST, find_engine, load_engine

OURS = "ran-deploy"
Infer = Callable[[np.ndarray], np.ndarray]
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured. `peers` are names of gpu.peers; `seconds` is the timed work at each batch size."""

    batches: tuple[int, ...] = (1, 8, 32, 128)
    seconds: float = 5.0
    leak_batches: int = 10_000
    peers: tuple[str, ...] = (*PEERS, TRTEXEC)
    checkpoints: tuple[Path, ...] = ()
    data: Path | None = None
    images: int = 10_000
    cache_dir: Path | None = None
    variants: bool = False


def measure_engine(bundle: Bundle, backend: str, options: Options, report: Callable[[str], None]) -> EngineResult:
    """Return everything about one engine; this never raises for what an engine or a peer does."""
    manifest = bundle.manifest
    result = EngineResult(
        bundle=manifest.name,
        architecture=manifest.architecture,
        precision=manifest.precision.value,
        input_size=manifest.preprocessing.crop,
        digest=bundle.digest,
        backend=backend,
    )
    problems: dict[str, str] = {}
    report(f"{manifest.name} on {backend}: engine")
    start = time.perf_counter()
    predictor = attempt(lambda: open_engine(bundle, backend, options), problems, "engine")
    if predictor is None:
        return replace(result, problems=problems)
    with predictor:
        seconds = time.perf_counter() - start
        result = replace(result, fingerprint=fingerprint(backend), load_seconds=seconds)
        result = with_checks(result, bundle, predictor, options, problems, report)
    return replace(result, problems=problems)


def open_engine(bundle: Bundle, backend: str, options: Options) -> Predictor:
    """Return a proven engine for the batch sizes asked for, which is built on this device where there is none."""
    engine = find_engine(bundle, backend, options.cache_dir)
    largest = max(options.batches)
    if backend in BUILT_ON_REQUEST and (engine is None or engine.batch.maximum < largest):
        sizes = sorted(options.batches)
        profile = BatchProfile(minimum=1, optimum=sizes[len(sizes) // 2], maximum=largest)
        build_engine(bundle, backend, cache_dir=options.cache_dir, batch=profile)
    return load_engine(bundle, backend, cache_dir=options.cache_dir).predictor


def with_checks(
    result: EngineResult,
    bundle: Bundle,
    predictor: Predictor,
    options: Options,
    problems: dict[str, str],
    report: Callable[[str], None],
) -> EngineResult:
    """Return the result with each check that could be made."""
    golden = read_golden(bundle)
    report(f"{result.bundle} on {result.backend}: golden self-test")
    test = attempt(lambda: golden_result(predictor, golden), problems, "self-test")
    if test is not None and not test.passed:
        problems["self-test"] = test.summary
    result = replace(result, self_test=test.summary if test is not None and test.passed else None)
    if options.data is not None:
        report(f"{result.bundle} on {result.backend}: accuracy on {options.data}")
        look = functools.partial(accuracy, predictor, options.data, options.images)
        result = replace(result, accuracy=attempt(look, problems, "accuracy"))
    result = replace(result, timings=timings(bundle, predictor, golden.inputs, options, report))
    middle = sized(golden.inputs, sorted(options.batches)[len(options.batches) // 2])
    report(f"{result.bundle} on {result.backend}: threads, memory")
    threads = attempt(lambda: overlaps(predictor.infer_batch, middle, options.seconds), problems, "threads")
    kept = attempt(lambda: leak(predictor.infer_batch, golden.inputs[:1], options.leak_batches), problems, "memory")
    result = replace(result, overlaps=threads or (), leak=kept)
    engine = attempt(lambda: find_engine(bundle, result.backend, options.cache_dir), problems, "size")
    if engine is not None:
        result = replace(result, engine_bytes=len(engine.data))
        if result.backend in BUILT_ON_REQUEST:
            result = with_gpu_checks(result, engine, middle, options, problems, report)
    return with_builds(result, bundle, predictor, golden.inputs, options, problems, report)


def with_gpu_checks(
    result: EngineResult,
    engine: CachedEngine,
    images: np.ndarray,
    options: Options,
    problems: dict[str, str],
    report: Callable[[str], None],
) -> EngineResult:
    """Return the result with what an engine of TensorRT consists of, and what graphs and slots gain."""
    layers = attempt(lambda: inspected(result.backend, engine), problems, "layers")
    report(f"{result.bundle} on {result.backend}: graphs, two batches at once")
    found = gains(result.backend, engine, images, options.seconds, problems)
    report(f"{result.bundle} on {result.backend}: batches of other sizes")
    padding = functools.partial(padding_gains, result.backend, engine, images[0], options.seconds)
    between, graph_bytes = attempt(padding, problems, "padding batches") or ((), None)
    return replace(result, layers=layers, gains=(*found, *between), graph_bytes=graph_bytes)


def with_builds(
    result: EngineResult,
    bundle: Bundle,
    predictor: Predictor,
    inputs: np.ndarray,
    options: Options,
    problems: dict[str, str],
    report: Callable[[str], None],
) -> EngineResult:
    """Return the result with what further builds of the engine tell: on timings and, where asked for, on options."""
    if result.backend == "tensorrt":
        report(f"{result.bundle} on {result.backend}: two builds, for the timing cache")
        again = functools.partial(builds, bundle, result.backend, predictor.batch)
        result = replace(result, builds=attempt(again, problems, "timing cache"))
    if options.variants and result.backend in VARIANTS:
        report(f"{result.bundle} on {result.backend}: engines of other options")
        images = sized(inputs, predictor.batch.optimum)
        rows = variants(bundle, predictor, images, options.seconds, VARIANTS[result.backend])
        result = replace(result, variants=rows)
    return result


def gains(
    backend: str, engine: CachedEngine, images: np.ndarray, seconds: float, problems: dict[str, str]
) -> tuple[Gain, ...]:
    """Return what graphs gain, at batch 1 and at this one, and what two batches under way do."""
    sizes = [images[:1], images] if len(images) > 1 else [images]
    graphs = attempt(lambda: graph_gains(backend, engine, sizes, seconds), problems, "CUDA graphs")
    slots = attempt(lambda: slot_gain(backend, engine, images, seconds), problems, "batches under way")
    return (*(graphs or ()), *([slots] if slots else []))


def inspected(backend: str, engine: CachedEngine) -> EngineLayers:
    """Return what TensorRT's inspector tells of the layers of an engine."""
    return layers_from_inspector(inspect_engine(backend.replace("-", "_"), engine.data, engine.traits))


def attempt(work: Callable[[], Found], problems: dict[str, str], name: str) -> Found | None:
    """Return what `work` returns; None with the reason among `problems` if it raises."""
    try:
        return work()
    except Exception as exc:  # a vendor's library raises what it likes, and the other checks go on
        problems[name] = one_line(exc)
        return None


def timings(
    bundle: Bundle, predictor: Predictor, inputs: np.ndarray, options: Options, report: Callable[[str], None]
) -> tuple[Timed, ...]:
    """Return our times and those of the peers, all calls in turn at each batch size."""
    setting = Setting(bundle=bundle, checkpoints=options.checkpoints)
    problems: dict[str, str] = {}
    runners: dict[str, Infer] = {OURS: predictor.infer_batch}
    for name in options.peers:
        if name in PEERS:
            found = attempt(functools.partial(PEERS[name], setting), problems, name)
            if found is not None:
                runners[name] = found
    rows = [Timed(runner=name, batch=batch, problem=p) for name, p in problems.items() for batch in options.batches]
    for batch in options.batches:
        report(f"{bundle.manifest.name} on {predictor.backend}: times at batch {batch}")
        rows += rows_of_batch(runners, sized(inputs, batch), options.seconds)
    if TRTEXEC in options.peers and predictor.backend == "tensorrt":
        engine = find_engine(bundle, predictor.backend, options.cache_dir)
        assert engine is not None
        if engine.refit_from is None:  # trtexec refits none
            rows += trtexec_rows(engine.data, bundle.manifest.preprocessing.crop, options.batches, options.seconds)
    return with_ratios(rows)


def sized(inputs: np.ndarray, batch: int) -> np.ndarray:
    """Return `batch` images, repeated as needed."""
    return np.resize(inputs, (batch, *inputs.shape[1:]))


def rows_of_batch(runners: Mapping[str, Infer], images: np.ndarray, seconds: float) -> list[Timed]:
    """Return one row for each runner: those that run one batch are timed in turn, the others tell why not."""
    batch, problems = len(images), dict[str, str]()
    calls: dict[tuple[str, int, str], Callable[[], object]] = {}
    for name, infer in runners.items():
        call = functools.partial(infer, images)
        if attempt(lambda call=call: call() is not None, problems, name):  # type: ignore[misc]
            calls[name, batch, ""] = call
    found = attempt(lambda: measure_in_turn(calls, seconds), problems, "all in turn")
    rows = [timed(name, batch, timing) for (name, _, _), timing in (found or {}).items()]
    return rows + [Timed(runner=name, batch=batch, problem=problem) for name, problem in problems.items()]


def timed(name: str, batch: int, timing: Timing) -> Timed:
    """Return the row of one runner."""
    latency = timing.latency_ms
    return Timed(
        runner=name,
        batch=batch,
        runs=len(timing.durations_ms),
        p50_ms=latency.p50,
        p90_ms=latency.p90,
        p99_ms=latency.p99,
        images_per_second=timing.throughput(batch),
        noisy=timing.noisy,
    )


def with_ratios(rows: Sequence[Timed]) -> tuple[Timed, ...]:
    """Return the rows with their median over ours at the same batch size, in the order of batch sizes."""
    ours = {row.batch: row.p50_ms for row in rows if row.runner == OURS and row.p50_ms}
    found = [
        replace(row, ratio=row.p50_ms / base) if row.p50_ms and (base := ours.get(row.batch)) else row for row in rows
    ]
    return tuple(sorted(found, key=lambda row: row.batch))
