"""Finding, building and proving the engine that runs a bundle on this machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ran_deploy.backends import BACKENDS, dialect_of
from ran_deploy.bundle import Bundle
from ran_deploy.cache import CachedEngine, EngineCache, default_cache_dir
from ran_deploy.converters.builders import BuildOptions, GpuOptions, Progress, open_builder
from ran_deploy.errors import (
    BackendUnavailableError,
    BundleError,
    ConfigError,
    EngineMismatchError,
    OutputError,
    RanDeployError,
    SelfTestError,
)
from ran_deploy.manifest import BatchProfile, EngineRecord, Manifest, SelfTestStatus
from ran_deploy.precision import Precision
from ran_deploy.requirements import misfits
from ran_deploy.runtime.backends import fingerprint, open_runner, unavailable_reason
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.golden import Golden, prove, read_golden

__all__ = [
    "ALL",
    "AUTO",
    "ExportedEngine",
    "LoadedEngine",
    "build_engine",
    "choose_backend",
    "expand_backends",
    "export_engines",
    "find_engine",
    "fresh_engine",
    "keep_engines",
    "load_engine",
    "runnable_backends",
]

logger = logging.getLogger(__name__)

AUTO = "auto"
ALL = "all"
# Their engines take a GPU and minutes to make, so they are made by ran-export or ran-build, never unasked.
BUILT_ON_REQUEST = frozenset({"tensorrt", "tensorrt-rtx"})
REMEDIES = {  # where an engine that was asked for cannot be built, or is wrong
    Precision.INT8: "give more and more typical --calibration-data, or --precision fp16, or leave that --backend out",
    Precision.FP16: "give --precision fp32, or leave that --backend out",
    Precision.FP32: "leave that --backend out",
}


@dataclass(frozen=True, kw_only=True)
class LoadedEngine:
    """A proven engine, ready to run; `origin` says where it came from: bundle, cache or built."""

    predictor: Predictor
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
    run here, SelfTestError if the engine's outputs are wrong.
    """
    backend = choose_backend(bundle, backend, cache_dir)
    if reason := unavailable_reason(backend):
        raise BackendUnavailableError(reason)
    cache, here = _cache(bundle, cache_dir), fingerprint(backend)
    engine, origin = cache.get(backend, here), "cache"
    if engine is None:
        engine, origin = _bundled_engine(bundle, backend, here), "bundle"
    if engine is None and backend in BUILT_ON_REQUEST:
        raise EngineMismatchError(_missing_engine(bundle, backend, cache_dir) or f"There is no engine for {backend}.")
    if engine is None:
        logger.info("building the %s engine for this machine", backend)
        engine, origin = fresh_engine(bundle, backend, bundle.manifest.batch), "built"
    predictor = open_predictor(bundle.manifest, backend, engine, threads)
    if engine.proven:
        return LoadedEngine(predictor=predictor, origin=origin, self_test=None)
    result = prove_engine(bundle, backend, predictor)
    cache.put(backend, here, replace(engine, proven=True))
    return LoadedEngine(predictor=predictor, origin=origin, self_test=result)


def find_engine(bundle: Bundle, backend: str, cache_dir: Path | None = None) -> CachedEngine | None:
    """Return the engine there is for this machine, from the cache or the bundle; None builds nothing.

    Raises: BackendUnavailableError if the backend's package is missing.
    """
    here = fingerprint(backend)
    return _cache(bundle, cache_dir).get(backend, here) or _bundled_engine(bundle, backend, here)


def build_engine(
    bundle: Bundle,
    backend: str,
    *,
    cache_dir: Path | None = None,
    batch: BatchProfile | None = None,
    gpu: GpuOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Path, SelfTestResult | None]:
    """Build the engine for this very machine and keep it in the cache, replacing the one there.

    `gpu` is for TensorRT's builders alone.
    Returns its folder in the cache and the outcome of the self-test, None where the engine cannot run here yet.
    Raises: BuildError, BackendUnavailableError; OutputError if the cache cannot be written; SelfTestError if the engine
    gives wrong results, and then keeps nothing.
    """
    cache = _cache(bundle, cache_dir)
    cache.check()
    if gpu is not None and backend not in BUILT_ON_REQUEST:
        raise ConfigError(
            f"--workspace, --optimization-level and --compute-capability are for TensorRT's builders; leave them out "
            f"for {backend}."
        )
    engine, result = fresh_engine(bundle, backend, batch or bundle.manifest.batch, gpu, progress), None
    if reason := unavailable_reason(backend):
        logger.warning("the engine is pending: it cannot run here to be proven (%s)", reason)
    else:
        with open_predictor(bundle.manifest, backend, engine, threads=0) as predictor:
            result = prove_engine(bundle, backend, predictor)
    cached = replace(engine, proven=result is not None)
    folder = cache.put(backend, fingerprint(backend), cached)
    if folder is None:
        raise OutputError(f"The {backend} engine was built but cannot be kept. Free space or give --cache-dir.")
    return folder, result


def open_predictor(manifest: Manifest, backend: str, engine: CachedEngine, threads: int) -> Predictor:
    """Load an engine without proving it."""
    return Predictor(open_runner(backend, engine.data, threads=threads), manifest, backend, batch=engine.batch)


def prove_engine(bundle: Bundle, backend: str, predictor: Predictor) -> SelfTestResult:
    """Run the golden self-test; an engine that fails is closed. Raises: SelfTestError."""
    require_dialect(bundle, backend)
    try:
        return prove(predictor, read_golden(bundle), f"The {backend} engine of {bundle.path}")
    except SelfTestError as exc:
        predictor.close()
        where = f"ran-validate {bundle.path} --diagnose --backend {backend}"
        raise SelfTestError(f"{exc}. To see where it goes wrong: {where}") from exc
    except RanDeployError:
        predictor.close()
        raise


def fresh_engine(
    bundle: Bundle,
    backend: str,
    batch: BatchProfile,
    gpu: GpuOptions | None = None,
    progress: Progress | None = None,
) -> CachedEngine:
    """Build an engine that is neither proven nor kept. Raises: BuildError, BackendUnavailableError."""
    graph = bundle.read(bundle.manifest.dialects[require_dialect(bundle, backend)].graph)
    options = BuildOptions(precision=bundle.manifest.precision, batch=batch, gpu=gpu or GpuOptions())
    return CachedEngine(data=open_builder(backend).build(graph, options, progress), batch=batch, proven=False)


def _bundled_engine(bundle: Bundle, backend: str, here: Mapping[str, str]) -> CachedEngine | None:
    record = _record(bundle, backend)
    if record is None or record.file is None or misfits(record.fingerprint, here):
        return None
    return CachedEngine(data=bundle.read(record.file), batch=record.batch, proven=False)


def _missing_engine(bundle: Bundle, backend: str, cache_dir: Path | None) -> str | None:
    """Return why there is no engine of `backend` for this machine; None if there is one or it is made unasked."""
    if backend not in BUILT_ON_REQUEST or unavailable_reason(backend):
        return None
    here = fingerprint(backend)
    if _cache(bundle, cache_dir).get(backend, here) is not None:
        return None
    remedy = f"Build one here: ran-build {bundle.path} --backend {backend}."
    record = _record(bundle, backend)
    if record is None or record.file is None:
        return f"Bundle {bundle.path} holds no {backend} engine. {remedy}"
    if differences := misfits(record.fingerprint, here):
        return f"The {backend} engine of {bundle.path} does not fit this machine: {'; '.join(differences)}. {remedy}"
    return None


def _record(bundle: Bundle, backend: str) -> EngineRecord | None:
    return next((record for record in bundle.manifest.engines if record.backend == backend), None)


def _cache(bundle: Bundle, cache_dir: Path | None) -> EngineCache:
    return EngineCache(cache_dir or default_cache_dir(), bundle.digest)


@dataclass(frozen=True, kw_only=True)
class ExportedEngine:
    """What an export made for one backend: an engine with its record, or the reason why there is none."""

    backend: str
    data: bytes = b""
    record: EngineRecord | None = None
    self_test: SelfTestResult | None = None
    reason: str = ""


def export_engines(
    backends: Sequence[str], manifest: Manifest, files: Mapping[str, bytes], golden: Golden, *, must_build: bool
) -> tuple[ExportedEngine, ...]:
    """Build an engine for each backend and prove it where it can run. A backend that is missing here is passed over.

    `must_build`: the user named the backends, so a refusal of a builder is an error; else it is a reason.
    Raises: BuildError, SelfTestError.
    """
    engines = []
    for backend in backends:
        try:
            engines.append(_exported(backend, manifest, files, golden))
        except BackendUnavailableError as exc:
            engines.append(ExportedEngine(backend=backend, reason=str(exc)))
        except RanDeployError as exc:
            if must_build:
                remedy = REMEDIES[manifest.precision]
                raise type(exc)(f"{str(exc).removesuffix('.')}. No bundle is written; {remedy}.") from exc
            engines.append(ExportedEngine(backend=backend, reason=str(exc)))
    return tuple(engines)


def _exported(backend: str, manifest: Manifest, files: Mapping[str, bytes], golden: Golden) -> ExportedEngine:
    dialect = manifest.dialects[dialect_of(backend)]
    options = BuildOptions(precision=manifest.precision, batch=manifest.batch)
    data = open_builder(backend).build(files[dialect.graph], options)
    reason, result = unavailable_reason(backend) or "", None
    if not reason:
        engine = CachedEngine(data=data, batch=manifest.batch, proven=False)
        with open_predictor(manifest, backend, engine, threads=0) as predictor:
            result = prove(predictor, golden, f"The {backend} engine")
    record = EngineRecord(
        backend=backend,
        file=f"engines/{backend}.plan" if backend in BUILT_ON_REQUEST else None,
        fingerprint=fingerprint(backend),
        batch=manifest.batch,
        self_test=SelfTestStatus.PENDING if result is None else SelfTestStatus.PASSED,
    )
    return ExportedEngine(backend=backend, data=data, record=record, self_test=result, reason=reason)


def keep_engines(engines: Sequence[ExportedEngine], cache_dir: Path, digest: str) -> None:
    """Put the engines that are bound to this machine into its cache, so that the first run need not build them."""
    for engine in engines:
        if engine.record is not None and engine.record.file is None:
            cached = CachedEngine(data=engine.data, batch=engine.record.batch, proven=engine.self_test is not None)
            EngineCache(cache_dir, digest).put(engine.backend, engine.record.fingerprint, cached)
