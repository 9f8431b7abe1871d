"""The typed graph that dialects are lowered from: float as it is, or INT8 as calibrated, within a budget or without."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import onnx_ir as ir

from ran_deploy.budget_record import BudgetRecord
from ran_deploy.calibration import CalibrationMethod, CalibrationTable, describe_stability, has_settled
from ran_deploy.counts import counted
from ran_deploy.engine.cache import default_cache_dir
from ran_deploy.manifest import CalibrationRecord, EqualizationRecord, Manifest
from ran_deploy.precision import Precision
from ran_deploy.workflows.exporting.budget import Budget, quantized_within, read_budget
from ran_deploy.workflows.exporting.config import ExportConfig, Progress, Report
from ran_deploy.workflows.exporting.quantization import CalibrationImages, Quantized, equalized, quantized, requantized
from ran_deploy.workflows.exporting.source import Source

__all__ = ["Artifact", "budget_of", "equalized_reference", "typed_artifact"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """The typed graph, and what the manifest says of how it came about; without a table nothing was calibrated."""

    model: ir.Model
    table: CalibrationTable | None = None
    calibration: CalibrationRecord | None = None
    kept_in_float: dict[str, str] = field(default_factory=dict)
    budget: BudgetRecord | None = None


def budget_of(
    config: ExportConfig, manifest: Manifest, images: CalibrationImages | None, report: Report, progress: Progress
) -> Budget | None:
    """Read the validation images, before anything that takes long; None without a budget."""
    if config.max_drop_pp is None or config.validation_data is None:
        return None
    assert images is not None
    return read_budget(config.validation_data, config.max_drop_pp, manifest, images, report, progress)


def equalized_reference(
    reference: ir.Model, images: CalibrationImages, report: Report, progress: Progress
) -> tuple[ir.Model, EqualizationRecord]:
    """Return a float graph of the same outputs that is easier on int8, and what was done to it."""
    total = len(images.prepared)
    scaled, done = equalized(reference, images, progress=lambda count: progress(count, total))
    if done.channels:
        channels, tensors = counted(done.channels, "channel"), counted(done.tensors, "tensor")
        report(f"equalised {channels} of {tensors} by factors of up to {done.largest_factor:g}, which cancel out")
    return scaled, done


def typed_artifact(
    config: ExportConfig,
    reference: ir.Model,
    source: Source,
    budget: Budget | None,
    report: Report,
    progress: Progress,
) -> Artifact:
    """Return the graph that dialects are lowered from: the reference itself, but for INT8."""
    if config.precision is not Precision.INT8:
        return Artifact(model=reference)
    if budget is None:
        result = _calibrated(config, reference, source, report, progress)
        _report_stability(result.record, report)
        return Artifact(model=result.model, table=result.table, calibration=result.record)
    images = source.images
    assert images is not None
    report(f"calibrating on {counted(len(images.prepared), 'image')} of {images.dataset}")
    methods = [config.calibration_method] if config.calibration_method else tuple(CalibrationMethod)
    cache = config.cache_dir or default_cache_dir()
    within = quantized_within(budget, reference, images, methods, config.dialects, cache, report, progress)
    _report_stability(within.quantized.record, report)
    return Artifact(
        model=within.quantized.model,
        table=within.quantized.table,
        calibration=within.quantized.record,
        kept_in_float=within.kept_in_float,
        budget=within.record,
    )


def _calibrated(
    config: ExportConfig, reference: ir.Model, source: Source, report: Report, progress: Progress
) -> Quantized:
    images = source.images
    assert images is not None
    shown = f"{counted(len(images.prepared), 'image')} of {images.dataset}"
    if source.table is None:
        report(f"calibrating on {shown}")
        return quantized(reference, images, config.calibration_method or CalibrationMethod.AUTO, progress=progress)
    result = requantized(reference, images, source.table)
    report(f"ranges of {config.calibration_table}, calibrated by {source.table.method.value} on these {shown}")
    return result


def _report_stability(record: CalibrationRecord, report: Report) -> None:
    """Say whether there were images enough, and warn where not."""
    if not record.stability:
        return  # fewer than 16 images: `selection_warnings` has said so
    if has_settled(record.stability[-1]):
        report(describe_stability(record.stability[-1]))
    else:
        logger.warning("%s", describe_stability(record.stability[-1]))
