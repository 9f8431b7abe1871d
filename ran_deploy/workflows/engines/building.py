"""Building the engine for this very machine, proving it, and saying what it consists of."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders import BuildOptions, GpuOptions, Progress
from ran_deploy.converters.builders.engine_layers import EngineLayers, layers_from_inspector
from ran_deploy.converters.builders.trt_dla import DlaLayers
from ran_deploy.converters.builders.trt_inspector import inspect_engine
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.engine.padding import every_padding
from ran_deploy.errors import BackendUnavailableError, ConfigError, OutputError, RanDeployError
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime.backends import fingerprint, trt_dla, unavailable_reason
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.engines.dla import dla_layers
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.engines.loading import (
    BUILT_ON_REQUEST,
    engine_cache,
    engine_graph,
    kept_kernels,
    open_predictor,
    prove_engine,
)
from ran_deploy.workflows.engines.padding import MeasuredPadding, measure_padding
from ran_deploy.workflows.engines.timed_build import engine_from_graph

__all__ = ["LAYERS_FILE", "BuiltEngine", "build_engine", "build_options"]

logger = logging.getLogger(__name__)

LAYERS_FILE = "layers.json"  # beside the engine, as TensorRT's inspector wrote it: NVIDIA's Engine Explorer reads it


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """A new engine in the cache. `self_test` is None where it cannot run here yet, `layers` where none can tell.

    `graph_bytes` is the size of the graph that an engine without weights gets them from; None for one that has its own.
    `dla` says what runs on it and why the rest does not; None unless the build is for DLA. `half_pixel`: it enlarges
    masks with half-pixel sample points, and so computes something else than the network. `padding` is what filling
    batches up was measured to gain; None unless that was asked for.
    """

    folder: Path
    self_test: SelfTestResult | None
    layers: EngineLayers | None
    engine_bytes: int
    graph_bytes: int | None = None
    dla: tuple[DlaLayers, ...] | None = None
    half_pixel: bool = False
    padding: MeasuredPadding | None = None


def build_engine(
    bundle: Bundle,
    backend: str,
    *,
    cache_dir: Path | None = None,
    batch: BatchProfile | None = None,
    gpu: GpuOptions | None = None,
    pad_batches: bool = False,
    progress: Progress | None = None,
) -> BuiltEngine:
    """Build the engine for this very machine and keep it in the cache, replacing the one there.

    `gpu` is for TensorRT's builders alone, and so is `pad_batches`: to measure which batches run faster padded, and
    pad those whenever the engine is loaded. An engine for DLA leaves that of the GPU in its place, and the reverse.
    Raises: BuildError, BackendUnavailableError; OutputError if the cache cannot be written; SelfTestError if the engine
    gives wrong results, and then keeps nothing.
    """
    cache = engine_cache(bundle, cache_dir)
    cache.check()
    options = build_options(bundle, backend, batch, gpu)
    if pad_batches:
        _require_padding(backend, options.batch)
    read_golden(bundle)  # a bundle that could prove nothing is refused before minutes of building
    graph = engine_graph(bundle, backend, options.gpu)
    with trt_dla.on_core(options.gpu.dla_core):
        dla = dla_layers(backend, graph, options) if options.gpu.dla_core is not None else None
        engine = engine_from_graph(backend, graph, options, cache_dir=cache_dir, progress=progress)
        padding = _measured_padding(bundle, backend, engine) if pad_batches else None
        if padding is not None:
            engine = replace(engine, padding=padding.padding)
        result, text = _proven(bundle, backend, engine, cache_dir)
        folder = cache.put(backend, fingerprint(backend), replace(engine, proven=result is not None))
    if folder is None:
        raise OutputError(f"The {backend} engine was built but cannot be kept. Free space or give --cache-dir.")
    return BuiltEngine(
        folder=folder,
        self_test=result,
        layers=_kept_layers(text, folder),
        engine_bytes=len(engine.data),
        graph_bytes=None if engine.refit_from is None else len(engine.refit_from),
        dla=dla,
        half_pixel=options.gpu.half_pixel,
        padding=padding,
    )


def build_options(
    bundle: Bundle, backend: str, batch: BatchProfile | None = None, gpu: GpuOptions | None = None
) -> BuildOptions:
    """Return what the builder of `backend` is told. Raises: ConfigError for what it, or a bundle, is not for."""
    if gpu is not None and backend not in BUILT_ON_REQUEST:
        given = ", ".join(gpu.given) or "options of a build for a GPU"
        raise ConfigError(f"TensorRT's builders alone take {given}; leave that out for {backend}.")
    gpu = gpu or GpuOptions()
    return BuildOptions(precision=bundle.manifest.precision, batch=batch or bundle.manifest.batch, gpu=gpu)


def _require_padding(backend: str, sizes: BatchProfile) -> None:
    """Raise ConfigError or BackendUnavailableError, before minutes of building, where no batches can be timed."""
    if backend not in BUILT_ON_REQUEST:
        raise ConfigError(f"--pad-batches is about CUDA graphs, and {backend} runs on the CPU: leave it out.")
    if not every_padding(sizes):
        raise ConfigError(
            "--pad-batches pads sizes between those that run as CUDA graphs, and an engine for batches of "
            f"{sizes.minimum} to {sizes.maximum} has none: leave it out, or give another --batch."
        )
    if reason := unavailable_reason(backend):
        raise BackendUnavailableError(f"--pad-batches times batches on the GPU that will run them: {reason}")


def _measured_padding(bundle: Bundle, backend: str, engine: CachedEngine) -> MeasuredPadding | None:
    """Return what padding batches gains; None, with a warning, where that cannot be timed: it takes memory."""
    try:
        return measure_padding(backend, engine, read_golden(bundle).inputs[0])
    except RanDeployError as exc:  # the engine is as good without
        logger.warning("no batches are padded, as they cannot be timed: %s", exc)
        return None


def _proven(
    bundle: Bundle, backend: str, engine: CachedEngine, cache_dir: Path | None
) -> tuple[SelfTestResult | None, str | None]:
    """Return the self-test and what the vendor tells of the layers, None where the engine cannot run here."""
    if reason := unavailable_reason(backend):
        logger.warning("the engine is pending: it cannot run here to be proven (%s)", reason)
        return None, None
    kernels = kept_kernels(bundle, backend, cache_dir)
    with open_predictor(bundle.manifest, backend, engine, threads=0, kernels=kernels) as predictor:
        result = prove_engine(bundle, backend, predictor)
    return result, _inspected(backend, engine)


def _inspected(backend: str, engine: CachedEngine) -> str | None:
    """Return what the vendor tells of a proven engine's layers; None for backends whose vendor tells nothing."""
    if backend not in BUILT_ON_REQUEST:
        return None
    try:
        return inspect_engine(backend.replace("-", "_"), engine.data, engine.traits)
    except RanDeployError as exc:  # the engine is right, whatever is known of its layers
        logger.warning("%s", exc)
        return None


def _kept_layers(text: str | None, folder: Path) -> EngineLayers | None:
    """Return the summary of what the vendor tells, which is kept beside the engine in place of an earlier one's."""
    try:
        (folder / LAYERS_FILE).unlink(missing_ok=True)
        if text is None:
            return None
        (folder / LAYERS_FILE).write_text(text, encoding="utf-8")
        return layers_from_inspector(text)
    except (OSError, RanDeployError) as exc:
        logger.warning("the layers of the engine are not summed up (%s)", exc)
        return None
