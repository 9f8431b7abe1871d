"""Why a bundle's engine is wrong or loses accuracy: where it leaves its graph, and where that graph leaves FP32."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.converters.builders import BuildOptions
from ran_deploy.converters.graph import model_from_bytes
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.errors import BackendUnavailableError, OutputError, RanDeployError
from ran_deploy.manifest import Manifest
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import fingerprint, unavailable_reason
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification.attention import rows_from_masks
from ran_deploy.verification.golden import SelfTestResult, tolerance_of
from ran_deploy.workflows.diagnosis.cuts import EngineCuts, ExactGraph, distance
from ran_deploy.workflows.diagnosis.dialect_loss import RegionLoss, region_losses
from ran_deploy.workflows.diagnosis.engine_divergence import EngineDivergence, find_departure
from ran_deploy.workflows.diagnosis.reproduction import Reproduction, check_folder, write_reproduction
from ran_deploy.workflows.engines.device_choice import refuse_dla, using_device
from ran_deploy.workflows.engines.golden import Golden, golden_result, read_golden
from ran_deploy.workflows.engines.loading import (
    ALL,
    AUTO,
    choose_backend,
    find_engine,
    fresh_engine,
    open_predictor,
    require_dialect,
)
from ran_deploy.workflows.evaluation.evaluators import REFERENCE_FILE

__all__ = ["DiagnoseConfig", "Diagnosis", "EngineOutcome", "Finding", "diagnose_bundle"]

logger = logging.getLogger(__name__)

MEMORY_BYTES = 2**30  # for the exact tensors between regions, of the dialect's graph and of FP32's
Report = Callable[[str], None]
Progress = Callable[[int, str], None]  # how many are done, of what


class Finding(str, Enum):
    """What is at fault."""

    AGREES = "agrees"  # nothing: stored and fresh engine do what the graph says
    ENGINE = "engine"  # an engine built here and now leaves the graph it was built from
    REGION = "region"  # the engine passes, but a region alone is further off than the whole may be
    STORED_ENGINE = "stored engine"  # only the one in the cache or the bundle does
    RECORDED = "recorded outputs"  # the graph, evaluated here, does not give what was recorded at export
    NOT_BUILT = "not built"  # the builder refuses the graph, or its engine cannot be loaded
    NOT_RUN = "not run"  # engines of this backend cannot run here


@dataclass(frozen=True, kw_only=True)
class DiagnoseConfig:
    """What to diagnose. 'auto' is the best backend that can run here, 'all' are all that the bundle has graphs for.

    Files that show a fault go to `output`, by default the folder NAME-diagnosis in the current one.
    """

    bundle: Path
    backends: tuple[str, ...] = (AUTO,)
    output: Path | None = None
    device: str | None = None  # 'cuda:1', a GPU, or 'dla:0', a DLA core
    cache_dir: Path | None = None
    require_signature: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EngineOutcome:
    """The golden self-test of one engine against its graph, evaluated here; or why there is none."""

    self_test: SelfTestResult | None
    reason: str | None

    @property
    def passed(self) -> bool:
        return self.self_test is not None and self.self_test.passed


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found of one backend.

    `recorded_distance` is the relative L2 between the outputs recorded at export and those of the graph, evaluated
    here. `stored` is None where there is no stored engine. `divergence` compares engines with the graph, `losses` the
    graph with FP32; `losses_missing` and `unwritten` say why there are none, and no files.
    """

    backend: str
    precision: Precision
    finding: Finding
    reason: str | None
    tolerance: float
    recorded_distance: float
    stored: EngineOutcome | None
    fresh: EngineOutcome | None
    divergence: EngineDivergence | None
    reproduction: Reproduction | None
    unwritten: str | None
    losses: tuple[RegionLoss, ...]
    losses_missing: str | None

    @property
    def healthy(self) -> bool:
        """Whether nothing was found at fault."""
        return self.finding in (Finding.AGREES, Finding.NOT_RUN)


def diagnose_bundle(
    config: DiagnoseConfig, report: Report = logger.info, progress: Progress = lambda done, what: None
) -> tuple[Diagnosis, ...]:
    """Look for the fault of each backend's engine, on the golden inputs; engines that fail their self-test are run too.

    `report` gets a line for each stage. Raises: BundleError, OutputError for an `output` that cannot be written,
    ConfigError for a `device` that is no GPU or of no use, and BackendUnavailableError without that GPU or where
    nothing here evaluates a graph as written. A fault is no error: see the findings.
    """
    refuse_dla(config.device, "--diagnose compares with engines that it builds for the GPU.")
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    bundle.verify()
    if config.output is not None:
        check_folder(config.output)
    with using_device(config.device, bundle, config.backends, config.cache_dir):
        return tuple(_diagnosed(bundle, backend, config, report, progress) for backend in _backends(bundle, config))


def _backends(bundle: Bundle, config: DiagnoseConfig) -> tuple[str, ...]:
    """Return the backends meant; where none can run, 'auto' is the first the bundle has a graph for."""
    chosen: list[str] = []
    every = [backend for backend, dialect in BACKENDS.items() if dialect in bundle.manifest.dialects]
    for backend in config.backends:
        if backend == ALL:
            chosen += every
            continue
        try:
            chosen.append(choose_backend(bundle, backend, config.cache_dir))
        except BackendUnavailableError:
            chosen.append(every[0])
    return tuple(dict.fromkeys(chosen))


@dataclass(frozen=True, kw_only=True)
class _Case:
    """One backend of a bundle with its graph; `exact` are the golden inputs with that graph's own outputs."""

    bundle: Bundle
    backend: str
    exact: Golden
    recorded_distance: float
    tolerance: float
    graph: ExactGraph

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest


def _diagnosed(bundle: Bundle, backend: str, config: DiagnoseConfig, report: Report, progress: Progress) -> Diagnosis:
    case = _opened(bundle, backend)
    stored = fresh = divergence = reproduction = unwritten = None
    missing = unavailable_reason(backend)
    if missing is None:
        report(f"{backend}: golden self-test of the stored engine and of a fresh one")
        stored = _tried(case, lambda: find_engine(bundle, backend, config.cache_dir))
        fresh = _tried(case, lambda: fresh_engine(bundle, backend, case.manifest.batch))
        assert fresh is not None
    if fresh is not None and fresh.self_test is not None:
        report(f"{backend}: engines of each region alone, and from the images to the ends of regions")
        cuts = EngineCuts(
            case.graph,
            backend,
            BuildOptions(precision=case.manifest.precision, batch=case.manifest.batch),
            _batch(fresh.self_test, case.manifest),
            lambda built: progress(built, "engine"),
        )
        divergence = find_departure(cuts, case.tolerance)
        if divergence.departure is not None and (divergence.serious or not fresh.passed):
            folder = config.output or Path(f"{_file_name(case.manifest.name)}-diagnosis")
            try:
                reproduction = write_reproduction(
                    folder,
                    _file_name(f"{case.manifest.name}-{backend}"),
                    cuts,
                    divergence.departure,
                    fingerprint(backend),
                    case.manifest.precision,
                )
            except OutputError as exc:  # the search took minutes: its result is worth more
                unwritten = str(exc)
    losses, losses_missing = _losses(case, report, progress)
    finding, reason = _finding(missing, stored, fresh, divergence, case.recorded_distance <= case.tolerance)
    return Diagnosis(
        backend=backend,
        precision=case.manifest.precision,
        finding=finding,
        reason=reason,
        tolerance=case.tolerance,
        recorded_distance=case.recorded_distance,
        stored=stored,
        fresh=fresh,
        divergence=divergence,
        reproduction=reproduction,
        unwritten=unwritten,
        losses=losses,
        losses_missing=losses_missing,
    )


def _opened(bundle: Bundle, backend: str) -> _Case:
    """Evaluate the graph of a backend on the golden inputs."""
    dialect, golden = require_dialect(bundle, backend), read_golden(bundle)
    recorded = golden.logits_of(dialect)
    record = bundle.manifest.dialects[dialect]
    model = model_from_bytes(bundle.read(record.graph))
    precision = bundle.manifest.precision
    one = ExactGraph(model, dialect, precision, golden.inputs[:1])
    between = one.tensors({name for region in one.regions for name in (*region.inputs, *region.outputs)})
    row_bytes = 2 * sum(array.nbytes for array in between.values())
    rows = max(1, min(len(golden.inputs), MEMORY_BYTES // max(1, row_bytes)))
    outputs = one.evaluate(model, {INPUT: golden.inputs})
    attention = bundle.manifest.attention
    masks = {each.name: outputs[each.output] for each in attention}
    return _Case(
        bundle=bundle,
        backend=backend,
        exact=Golden(
            inputs=golden.inputs,
            logits={dialect: outputs[OUTPUT]},
            attention={dialect: rows_from_masks(masks, attention)} if attention else {},
        ),
        recorded_distance=distance(recorded, outputs[OUTPUT]),
        tolerance=tolerance_of(record.spread),
        graph=ExactGraph(model, dialect, precision, golden.inputs[:rows]),
    )


def _tried(case: _Case, make: Callable[[], CachedEngine | None]) -> EngineOutcome | None:
    """Return how an engine does against its graph as evaluated here; None if there is no engine."""
    try:
        engine = make()
        if engine is None:
            return None
        with open_predictor(case.manifest, case.backend, engine, threads=0) as predictor:
            return EngineOutcome(self_test=golden_result(predictor, case.exact), reason=None)
    except RanDeployError as exc:
        return EngineOutcome(self_test=None, reason=str(exc))


def _batch(result: SelfTestResult, manifest: Manifest) -> int:
    """Return a batch size at which the self-test fails, else the one the engine is best at."""
    return next((batch.batch_size for batch in result.batches if not batch.passed), manifest.batch.optimum)


def _losses(case: _Case, report: Report, progress: Progress) -> tuple[tuple[RegionLoss, ...], str | None]:
    """Return how the graph leaves FP32, or why that cannot be said."""
    if case.manifest.precision is Precision.FP32:
        return (), "the graph itself is FP32"
    if REFERENCE_FILE not in case.bundle:
        return (), "the bundle was exported without its FP32 graph"
    report(f"{case.backend}: its graph against FP32, region by region")
    model = model_from_bytes(case.bundle.read(REFERENCE_FILE))
    images = case.graph.tensors([INPUT])[INPUT]
    reference = ExactGraph(model, "onnxruntime", Precision.FP32, images)
    return region_losses(case.graph, reference, lambda done: progress(done, "region")), None


def _finding(
    missing: str | None,
    stored: EngineOutcome | None,
    fresh: EngineOutcome | None,
    divergence: EngineDivergence | None,
    reproduced: bool,
) -> tuple[Finding, str | None]:
    """Return what is at fault, the first that explains the others, and why nothing could be tried."""
    if fresh is None:
        return (Finding.NOT_RUN, missing) if reproduced else (Finding.RECORDED, missing)
    if fresh.self_test is None:
        return Finding.NOT_BUILT, fresh.reason
    if not fresh.passed:
        return Finding.ENGINE, None
    if divergence is not None and divergence.serious:
        return Finding.REGION, None
    if stored is not None and not stored.passed:
        return Finding.STORED_ENGINE, stored.reason
    return (Finding.AGREES if reproduced else Finding.RECORDED), None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
