"""Finding, loading and proving the engine that runs a bundle on this machine."""

from __future__ import annotations

import functools
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ran_deploy.backends import BACKENDS, dialect_of
from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders import BuildOptions, GpuOptions, Progress
from ran_deploy.engine.cache import CachedEngine, EngineCache, default_cache_dir
from ran_deploy.engine.device_files import kernel_file
from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.engine.requirements import misfits
from ran_deploy.errors import (
    BackendUnavailableError,
    BundleError,
    ConfigError,
    EngineMismatchError,
    SelfTestError,
)
from ran_deploy.manifest import BatchProfile, EngineRecord, Manifest
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends import fingerprint, open_runner, trt_dla, unavailable_reason
from ran_deploy.runtime.described import require_described
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.engines.dla import half_pixel_graph
from ran_deploy.workflows.engines.golden import prove, read_golden
from ran_deploy.workflows.engines.timed_build import engine_from_graph

__all__ = [
    "ALL",
    "AUTO",
    "BUILT_ON_REQUEST",
    "DLA_BACKENDS",
    "LoadedEngine",
    "build_command",
    "choose_backend",
    "engine_cache",
    "engine_graph",
    "expand_backends",
    "find_engine",
    "fresh_engine",
    "kept_kernels",
    "load_engine",
    "open_predictor",
    "prove_engine",
    "require_dialect",
    "runnable_backends",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
ALL = "all"
# Their engines take a GPU and minutes to make, so they are made by ran-export or ran-build, never unasked.
BUILT_ON_REQUEST = frozenset({"tensorrt", "tensorrt-rtx"})
DLA_BACKENDS = frozenset({"tensorrt"})
MOST_THREADS = 1024  # with some more ONNX Runtime ends the process, where threads are limited


@dataclass(frozen=True, kw_only=True)
class LoadedEngine:
    """A proven engine, ready to run; `origin` says where it came from: bundle, cache or built."""

    predictor: Predictor
    engine: CachedEngine
    origin: str
    self_test: SelfTestResult | None  # None where a proof is on record in the cache


def runnable_backends(bundle: Bundle, cache_dir: Path | None = None) -> dict[str, str | None]:
    """Return for each backend of the bundle's dialects, best first, None if it can run here, else why not."""
    return {
        backend: unavailable_reason(backend) or _missing_engine(bundle, backend, cache_dir)
        for backend, dialect in BACKENDS.items()
        if dialect in bundle.manifest.dialects
    }


def choose_backend(bundle: Bundle, backend: str, cache_dir: Path | None = None) -> str:
    """Return `backend`, or for 'auto' the best that can run here. Raises: BackendUnavailableError, BundleError."""
    if backend != AUTO:
        require_dialect(bundle, backend)
        return backend
    reasons = runnable_backends(bundle, cache_dir)
    chosen = next((name for name, reason in reasons.items() if reason is None), None)
    if chosen is None:
        listed = " ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise BackendUnavailableError(f"No backend of this bundle can run here. {listed}")
    return chosen


def expand_backends(bundle: Bundle, backends: Sequence[str], cache_dir: Path | None = None) -> tuple[str, ...]:
    """Return the backends meant, each once: 'all' are those that can run here, 'auto' is the best of them.

    Raises: BackendUnavailableError if there is none.
    """
    chosen: list[str] = []
    for backend in backends:
        best = choose_backend(bundle, AUTO if backend == ALL else backend, cache_dir)
        runnable = [name for name, reason in runnable_backends(bundle, cache_dir).items() if reason is None]
        chosen += runnable if backend == ALL else [best]
    return tuple(dict.fromkeys(chosen))


def require_dialect(bundle: Bundle, backend: str) -> str:
    """Return the dialect of `backend`. Raises: BundleError if the bundle was exported without it."""
    dialect = dialect_of(backend)
    if dialect not in bundle.manifest.dialects:
        raise BundleError(
            f"Bundle {bundle.path} was exported without {backend}; it has {', '.join(bundle.manifest.dialects)}. "
            f"Export it again with --backend {backend}."
        )
    return dialect


def load_engine(
    bundle: Bundle, backend: str = AUTO, *, cache_dir: Path | None = None, threads: int = 0
) -> LoadedEngine:
    """Return a proven engine of `bundle`: from this device's cache, from the bundle, or built now.

    Raises: EngineMismatchError if there is no engine for this machine, BackendUnavailableError if the backend cannot
    run here, SelfTestError if the engine's outputs are wrong; ConfigError for a number of threads that no CPU has.
    """
    if not 0 <= threads <= MOST_THREADS:
        raise ConfigError(f"--threads is {threads}; expected 1 to {MOST_THREADS}, or 0 for all.")
    backend = choose_backend(bundle, backend, cache_dir)
    if reason := unavailable_reason(backend):
        raise BackendUnavailableError(reason)
    cache, here = engine_cache(bundle, cache_dir), fingerprint(backend)
    engine, origin = _kept_engine(bundle, backend, here, cache_dir), "cache"
    if engine is None:
        engine, origin = _bundled_engine(bundle, backend, here), "bundle"
    if engine is None and backend in BUILT_ON_REQUEST:
        raise EngineMismatchError(_missing_engine(bundle, backend, cache_dir) or f"There is no engine for {backend}.")
    if engine is None:
        logger.info("building the %s engine for this machine", backend)
        engine, origin = fresh_engine(bundle, backend, bundle.manifest.batch), "built"
    try:
        predictor = open_predictor(bundle.manifest, backend, engine, threads, kept_kernels(bundle, backend, cache_dir))
    except EngineMismatchError as exc:
        raise EngineMismatchError(f"{exc} For this bundle: {build_command(bundle, backend)}") from exc
    if engine.proven:
        return LoadedEngine(predictor=predictor, engine=engine, origin=origin, self_test=None)
    result = prove_engine(bundle, backend, predictor)
    cache.put(backend, here, replace(engine, proven=True))
    return LoadedEngine(predictor=predictor, engine=engine, origin=origin, self_test=result)


def find_engine(bundle: Bundle, backend: str, cache_dir: Path | None = None) -> CachedEngine | None:
    """Return the engine there is for this machine, from the cache or the bundle; None builds nothing.

    Raises: BackendUnavailableError if the backend's package is missing.
    """
    here = fingerprint(backend)
    return _kept_engine(bundle, backend, here, cache_dir) or _bundled_engine(bundle, backend, here)


def open_predictor(
    manifest: Manifest, backend: str, engine: CachedEngine, threads: int, kernels: KeptFile | None = None
) -> Predictor:
    """Load an engine without proving it. Raises: BundleError if it is not the one the manifest describes."""
    runner = open_runner(backend, engine.data, threads=threads, traits=engine.traits, kernels=kernels)
    try:
        require_described(runner, manifest, backend)
    except BundleError:
        runner.close()
        raise
    return Predictor(
        runner, manifest, backend, batch=engine.batch, half_pixel=engine.half_pixel, padding=engine.padding
    )


def kept_kernels(bundle: Bundle, backend: str, cache_dir: Path | None) -> KeptFile | None:
    """Return where kernels that are compiled when an engine is loaded are kept, for this device."""
    if backend != "tensorrt-rtx":
        return None
    device = cuda.current_device()
    parts = {**fingerprint(backend), "GPU": device.name, "driver": device.driver}
    return kernel_file(cache_dir or default_cache_dir(), bundle.digest, backend, parts)


def prove_engine(bundle: Bundle, backend: str, predictor: Predictor) -> SelfTestResult:
    """Run the golden self-test; an engine that does not pass is closed. Raises: SelfTestError."""
    require_dialect(bundle, backend)
    try:
        return prove(predictor, read_golden(bundle), f"The {backend} engine of {bundle.path}")
    except SelfTestError as exc:
        predictor.close()
        if predictor.half_pixel:
            raise SelfTestError(
                f"{exc}. It computes with half-pixel sample points, which are further from this network than the test "
                "allows: build it without --half-pixel"
            ) from exc
        where = f"ran-validate {shlex.quote(str(bundle.path))} --diagnose --backend {backend}"
        raise SelfTestError(f"{exc}. To see where it goes wrong: {where}") from exc
    except BaseException:  # an interrupt too: whoever catches it has no predictor to close
        predictor.close()
        raise


def fresh_engine(
    bundle: Bundle,
    backend: str,
    batch: BatchProfile,
    gpu: GpuOptions | None = None,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> CachedEngine:
    """Build an engine that is neither proven nor kept. Raises: BuildError, BackendUnavailableError."""
    gpu = gpu or GpuOptions()
    options = BuildOptions(precision=bundle.manifest.precision, batch=batch, gpu=gpu)
    return engine_from_graph(
        backend, engine_graph(bundle, backend, gpu), options, cache_dir=cache_dir, progress=progress
    )


def engine_graph(bundle: Bundle, backend: str, gpu: GpuOptions) -> bytes:
    """Return what the builder reads: the dialect's graph, or that with half-pixel sample points."""
    graph = bundle.read(bundle.manifest.dialects[require_dialect(bundle, backend)].graph)
    return half_pixel_graph(graph) if gpu.half_pixel else graph


def _kept_engine(bundle: Bundle, backend: str, here: Mapping[str, str], cache_dir: Path | None) -> CachedEngine | None:
    graph = functools.partial(engine_graph, bundle, backend, GpuOptions())
    return engine_cache(bundle, cache_dir).get(backend, here, graph)


def build_command(bundle: Bundle, backend: str, batch: BatchProfile | None = None) -> str:
    """Return what builds the engine of a bundle for this device, which may be the thread's current DLA core.

    `batch` None are the sizes of the export; for DLA the optimum alone, as it takes but one.
    """
    command = f"ran-build {shlex.quote(str(bundle.path))} --backend {backend}"
    core = trt_dla.current_core()
    if core is not None and backend in DLA_BACKENDS:
        command += f" --device dla:{core}"
        size = bundle.manifest.batch.optimum
        batch = batch or BatchProfile(minimum=size, optimum=size, maximum=size)
    return command if batch is None else f"{command} --batch {batch}"


def _bundled_engine(bundle: Bundle, backend: str, here: Mapping[str, str]) -> CachedEngine | None:
    record = _record(bundle, backend)
    if record is None or record.file is None or misfits(record.fingerprint, here):
        return None
    return CachedEngine(data=bundle.read(record.file), batch=record.batch, required=record.fingerprint, proven=False)


def _missing_engine(bundle: Bundle, backend: str, cache_dir: Path | None) -> str | None:
    """Return why there is no engine of `backend` for this machine; None if there is one or it is made unasked."""
    if backend not in BUILT_ON_REQUEST or unavailable_reason(backend):
        return None
    here = fingerprint(backend)
    if _kept_engine(bundle, backend, here, cache_dir) is not None:
        return None
    remedy = f"Build one here: {build_command(bundle, backend)}."
    if backend in DLA_BACKENDS and trt_dla.current_core() is not None:
        return f"There is no {backend} engine of {bundle.path} for DLA here. {remedy}"
    record = _record(bundle, backend)
    if record is None or record.file is None:
        return f"Bundle {bundle.path} holds no {backend} engine. {remedy}"
    if differences := misfits(record.fingerprint, here):
        return f"The {backend} engine of {bundle.path} does not fit this machine: {'; '.join(differences)}. {remedy}"
    return None


def _record(bundle: Bundle, backend: str) -> EngineRecord | None:
    return next((record for record in bundle.manifest.engines if record.backend == backend), None)


def engine_cache(bundle: Bundle, cache_dir: Path | None) -> EngineCache:
    return EngineCache(cache_dir or default_cache_dir(), bundle.digest)
