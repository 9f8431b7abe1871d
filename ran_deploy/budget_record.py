"""What the manifest keeps of the search for an accuracy budget: what was measured, and what stays in float and why."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BudgetLook", "BudgetRecord", "RegionRecord"]


@dataclass(frozen=True, kw_only=True)
class RegionRecord:
    """One region of the network: what the accuracy budget keeps in float or quantises as a whole.

    `multiply_adds` is its share, 0..1, of those of all regions. `output_error` is the relative L2 of the outputs on
    calibration images where this region alone is INT8.
    """

    name: str
    multiply_adds: float
    output_error: float
    kept_in_float: bool


@dataclass(frozen=True, kw_only=True)
class BudgetLook:
    """One measurement of the search: the drop of one dialect with `kept_regions` of the regions in float.

    `bound_pp` is the upper end of the drop at the two-sided `confidence`, 0..1, which rises from look to look, so that
    all of them together mislead as seldom as a single one at 95 %. A hopeless look ends before it has seen all images.
    """

    kept_regions: int
    float_multiply_adds: float  # share, 0..1
    dialect: str
    images: int  # or pairs of images
    drop_pp: float
    bound_pp: float
    confidence: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class BudgetRecord:
    """How it was decided what stays in float, so that the accuracy drop is within `max_drop_pp`.

    `measure` is the accuracy the budget is about. `method_errors` are the output errors, relative L2 on calibration
    images, of INT8 by each calibration method that was tried; the least one was taken. `regions` come in the order in
    which they would be kept, the most harmful first; there are none where all INT8 was within the budget. `looks` are
    in the order they were taken; `drops` are those that passed for what was exported, one for each dialect.
    `image_sha256` are the validation images the search saw: they prove nothing any more.
    """

    max_drop_pp: float
    measure: str
    dataset: str
    image_sha256: tuple[str, ...]
    method_errors: dict[str, float]
    regions: tuple[RegionRecord, ...]
    looks: tuple[BudgetLook, ...]
    drops: tuple[BudgetLook, ...]
    float_multiply_adds: float  # share, 0..1
