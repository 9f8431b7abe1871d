"""What a report tells of how the bundle was made: without the digests of its images, which are for machines."""

from __future__ import annotations

from ran_deploy.budget_record import BudgetRecord
from ran_deploy.manifest import CalibrationRecord
from ran_deploy.report.details_schema import BudgetSummary, CalibrationSummary

__all__ = ["budget_summary", "calibration_summary"]


def calibration_summary(record: CalibrationRecord) -> CalibrationSummary:
    """Return how activation ranges were found."""
    return CalibrationSummary(
        method=record.method,
        dataset=record.dataset,
        images=record.images,
        stability=record.stability,
        chosen=record.chosen,
    )


def budget_summary(record: BudgetRecord) -> BudgetSummary:
    """Return how it was decided what stays in float."""
    return BudgetSummary(
        max_drop_pp=record.max_drop_pp,
        measure=record.measure,
        dataset=record.dataset,
        images=len(record.image_sha256),
        method_errors=record.method_errors,
        regions=record.regions,
        looks=record.looks,
        drops=record.drops,
        float_multiply_adds=record.float_multiply_adds,
    )
