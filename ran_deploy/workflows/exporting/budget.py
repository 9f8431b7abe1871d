"""The accuracy budget of an export: INT8 as far as it is shown to lose no more than the user allows, the rest in float.

Calibration images choose the method and the order in which regions are kept; validation images only judge, so what they
say of the result is true of it. docs/accuracy_budget.md has the reasons.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import onnx_ir as ir

from ran_deploy.budget_record import BudgetRecord, RegionRecord
from ran_deploy.bundle import sha256_of
from ran_deploy.calibration import RANGE_RULES, CalibrationMethod
from ran_deploy.calibration.search import confidences
from ran_deploy.converters.graph import model_bytes
from ran_deploy.counts import counted
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import BudgetError
from ran_deploy.journal import Journal
from ran_deploy.manifest import CalibrationRecord, Manifest, Task
from ran_deploy.runtime.backends import fingerprint, unavailable_reason
from ran_deploy.verification.statistics import PairedOutcome, decimals, images_needed, rounded_up
from ran_deploy.workflows.evaluation.images import ValidationImages
from ran_deploy.workflows.evaluation.tasks import TASKS, ImageRequest
from ran_deploy.workflows.exporting.budget_drop import ENGINES, DropMeter
from ran_deploy.workflows.exporting.budget_search import FloatSearch, Found
from ran_deploy.workflows.exporting.output_errors import OutputErrors
from ran_deploy.workflows.exporting.quantization import (
    CalibrationImages,
    Quantized,
    int8_graph,
    measured_ranges,
    quantized,
)
from ran_deploy.workflows.exporting.versions import tool_versions

__all__ = ["Budget", "WithinBudget", "quantized_within", "read_budget"]

logger = logging.getLogger(__name__)

ERROR_IMAGES = 32  # calibration images on which output errors are measured

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is allowed, and the validation images that show whether it is kept."""

    max_drop_pp: float
    images: ValidationImages
    task: Task


@dataclass(frozen=True, kw_only=True)
class WithinBudget:
    """INT8 within the budget; `kept_in_float` has a reason for each region that is not INT8."""

    quantized: Quantized
    kept_in_float: dict[str, str]
    record: BudgetRecord


def read_budget(
    path: Path, max_drop_pp: float, manifest: Manifest, images: CalibrationImages, report: Report, progress: Progress
) -> Budget:
    """Read the validation images. `manifest` is what is known of the bundle before anything is made.

    Raises: DatasetError for calibration images among them; BudgetError if so few can prove nothing within the budget.
    """
    calibration = CalibrationRecord(
        method="", dataset=images.dataset, images=len(images.prepared), image_sha256=images.digests
    )
    read = TASKS[manifest.task].read(
        ImageRequest(
            dataset=open_dataset(path, Split.TEST),
            manifest=replace(manifest, calibration=calibration),
            limit=None,
            pairs=None,
            judged=True,
            report=report,
            progress=progress,
        )
    )
    for warning in read.warnings:
        logger.warning("%s", warning)
    judged = len(read.pairs) if read.pairs is not None else len(read)
    unit = "pair" if read.pairs is not None else "image"
    require_enough(PairedOutcome(images=judged, lost=0, gained=0, unit=unit), max_drop_pp)
    return Budget(max_drop_pp=max_drop_pp, images=read, task=manifest.task)


def require_enough(perfect: PairedOutcome, max_drop_pp: float) -> None:
    """Raise BudgetError if not even equal answers on all images would prove the budget at the first look."""
    confidence = next(confidences())
    bound = perfect.drop_interval_pp(confidence)[1]
    if bound <= max_drop_pp:
        return
    needed = images_needed(perfect, max_drop_pp, confidence)
    least = f"about {rounded_up(needed):,} {perfect.unit}s could" if needed else f"no number of {perfect.unit}s does"
    at_least = f"{bound:.{decimals(bound, max_drop_pp)}f}"
    raise BudgetError(
        f"{counted(perfect.images, f'validation {perfect.unit}')} cannot prove a drop of at most {max_drop_pp:g} "
        f"points: even if INT8 lost none of them the upper bound would be {at_least}; {least}. Give more "
        "--validation-data, or a larger --max-drop."
    )


def quantized_within(
    budget: Budget,
    model: ir.Model,
    images: CalibrationImages,
    methods: Collection[CalibrationMethod],
    dialects: Sequence[str],
    cache_dir: Path,
    report: Report,
    progress: Progress,
) -> WithinBudget:
    """Return INT8 of the float graph `model` that loses no more than the budget in each of `dialects`.

    The best of `methods` is taken. What was measured is kept under `cache_dir`: a search that was interrupted goes on.
    Raises: BudgetError if too much of the network would have to stay in float.
    """
    dialects = sorted(dialects, key=lambda name: list(ENGINES).index(name) if name in ENGINES else len(ENGINES))
    journal = Journal(cache_dir / "searches" / f"{_digest(budget, model, images)}.jsonl")
    if len(journal):
        report(f"going on with what was measured before: {counted(len(journal), 'measurement')} on record")
    errors = OutputErrors(model, images.prepared[:ERROR_IMAGES], journal)
    best, method_errors = _best_method(model, images, methods, errors, report, progress)
    count = counted(len(budget.images), "image")
    report(
        f"accuracy budget: a drop of at most {budget.max_drop_pp:g} points on {count} of {budget.images.dataset.name}"
    )
    meter = DropMeter.of(model, budget.images, budget.task, journal, progress)
    found = FloatSearch(
        model,
        best.table.ranges,
        max_drop_pp=budget.max_drop_pp,
        dialects=dialects,
        meter=meter,
        errors=errors,
        report=report,
        progress=progress,
    ).run()
    return WithinBudget(
        quantized=replace(best, model=int8_graph(model, best.table.ranges, found.nodes)),
        kept_in_float=_reasons(found),
        record=_record(budget, meter.outcome.measure, method_errors, found),
    )


def _best_method(
    model: ir.Model,
    images: CalibrationImages,
    methods: Collection[CalibrationMethod],
    errors: OutputErrors,
    report: Report,
    progress: Progress,
) -> tuple[Quantized, dict[str, float]]:
    """Return INT8 by the method with the least output error, and the errors of all."""
    total = len(images.prepared)
    rules = tuple(RANGE_RULES) if CalibrationMethod.AUTO in methods else methods
    measured = measured_ranges(model, images, rules, progress=lambda done: progress(done, total))
    tried = {method: quantized(model, images, method, measured=measured, progress=progress) for method in methods}
    found = {method: errors.of(tried[method].model) for method in tried}
    best = min(found, key=lambda method: found[method])
    listed = ", ".join(f"{method.value} {error:.4f}" for method, error in found.items())
    taken = f": {best.value} is taken" if len(found) > 1 else ""
    report(f"all INT8 moves the outputs by relative L2 {listed}{taken}")
    return tried[best], {method.value: error for method, error in found.items()}


def _digest(budget: Budget, model: ir.Model, images: CalibrationImages) -> str:
    """Return what the measurements depend on, beside the INT8 graph that each of them names itself."""
    data = budget.images
    engines = [fingerprint(backend) for backend in ENGINES.values() if not unavailable_reason(backend)]
    labels = [data.dataset.label(index) for index in data.indices]
    parts = (
        sha256_of(model_bytes(model)),
        sha256_of(images.prepared.tobytes()),
        data.recipe,
        data.digests,
        labels,
        budget.task,
        engines,
        tool_versions(),
    )
    return sha256_of(msgspec.json.encode(parts))


def _reasons(found: Found) -> dict[str, str]:
    total = sum(region.multiply_adds for region in found.regions)
    return {
        region.name: f"alone in INT8 it moves the outputs by {region.output_error:.3f} relative L2; it has "
        f"{100 * region.multiply_adds / total:.1f} % of the multiply-adds"
        for region in found.regions[: found.kept]
    }


def _record(budget: Budget, measure: str, method_errors: dict[str, float], found: Found) -> BudgetRecord:
    total = sum(region.multiply_adds for region in found.regions)
    return BudgetRecord(
        max_drop_pp=budget.max_drop_pp,
        measure=measure,
        dataset=budget.images.dataset.name,
        image_sha256=budget.images.digests,
        method_errors=method_errors,
        regions=tuple(
            RegionRecord(
                name=region.name,
                multiply_adds=region.multiply_adds / total,
                output_error=region.output_error,
                kept_in_float=position < found.kept,
            )
            for position, region in enumerate(found.regions)
        ),
        looks=found.looks,
        drops=tuple(look for look in found.looks if look.kept_regions == found.kept),
        float_multiply_adds=found.float_multiply_adds,
    )
