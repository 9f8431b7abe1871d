"""Engines made at export: built for each backend, proven where they can run, and recorded in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ran_deploy.backends import dialect_of
from ran_deploy.converters.builders import BuildOptions, GpuOptions
from ran_deploy.engine.cache import CachedEngine, EngineCache
from ran_deploy.errors import BackendUnavailableError, RanDeployError
from ran_deploy.manifest import EngineRecord, Manifest, SelfTestStatus
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import unavailable_reason
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.engines.golden import Golden, prove
from ran_deploy.workflows.engines.loading import BUILT_ON_REQUEST, open_predictor
from ran_deploy.workflows.engines.timed_build import engine_from_graph

__all__ = ["ExportedEngine", "export_engines", "keep_engines"]

REMEDIES = {  # where an engine that was asked for cannot be built, or is wrong
    Precision.INT8: "give more and more typical --calibration-data, or --precision fp16, or leave that --backend out",
    Precision.FP16: "give --precision fp32, or leave that --backend out",
    Precision.FP32: "leave that --backend out",
}


@dataclass(frozen=True, kw_only=True)
class ExportedEngine:
    """What an export made for one backend: an engine with its record, or the reason why there is none."""

    backend: str
    data: bytes = b""
    record: EngineRecord | None = None
    self_test: SelfTestResult | None = None
    reason: str = ""


def export_engines(
    backends: Sequence[str],
    manifest: Manifest,
    files: Mapping[str, bytes],
    golden: Golden,
    *,
    must_build: bool,
    cache_dir: Path,
    gpu: GpuOptions | None = None,
) -> tuple[ExportedEngine, ...]:
    """Build an engine for each backend and prove it where it can run. A backend that is missing here is passed over.

    `must_build`: the user named the backends, so a refusal of a builder is an error; else it is a reason. `gpu` is for
    TensorRT alone.
    Raises: BuildError, SelfTestError.
    """
    engines = []
    for backend in backends:
        asked = gpu if gpu is not None and backend == "tensorrt" else GpuOptions()
        try:
            engines.append(_exported(backend, manifest, files, golden, cache_dir, asked))
        except BackendUnavailableError as exc:
            engines.append(ExportedEngine(backend=backend, reason=str(exc)))
        except RanDeployError as exc:
            if must_build:
                remedy = REMEDIES[manifest.precision]
                raise type(exc)(f"{str(exc).removesuffix('.')}. No bundle is written; {remedy}.") from exc
            engines.append(ExportedEngine(backend=backend, reason=str(exc)))
    return tuple(engines)


def _exported(
    backend: str, manifest: Manifest, files: Mapping[str, bytes], golden: Golden, cache_dir: Path, gpu: GpuOptions
) -> ExportedEngine:
    dialect = manifest.dialects[dialect_of(backend)]
    options = BuildOptions(precision=manifest.precision, batch=manifest.batch, gpu=gpu)
    engine = engine_from_graph(backend, files[dialect.graph], options, cache_dir=cache_dir)
    reason, result = unavailable_reason(backend) or "", None
    if not reason:
        with open_predictor(manifest, backend, engine, threads=0) as predictor:
            result = prove(predictor, golden, f"The {backend} engine")
    record = EngineRecord(
        backend=backend,
        file=f"engines/{backend}.plan" if backend in BUILT_ON_REQUEST else None,
        fingerprint=dict(engine.required),
        batch=manifest.batch,
        self_test=SelfTestStatus.PENDING if result is None else SelfTestStatus.PASSED,
    )
    return ExportedEngine(backend=backend, data=engine.data, record=record, self_test=result, reason=reason)


def keep_engines(engines: Sequence[ExportedEngine], cache_dir: Path, digest: str) -> None:
    """Put the engines that are bound to this machine into its cache, so that the first run need not build them."""
    for engine in engines:
        if engine.record is not None and engine.record.file is None:
            here = engine.record.fingerprint  # these engines are of this very machine
            proven = engine.self_test is not None
            cached = CachedEngine(data=engine.data, batch=engine.record.batch, required=here, proven=proven)
            EngineCache(cache_dir, digest).put(engine.backend, here, cached)
