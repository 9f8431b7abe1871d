"""What a report says beyond accuracy: speed, size, calibration, what stayed in float. Part of its JSON's schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ran_deploy.budget_record import BudgetLook, RegionRecord
from ran_deploy.manifest import RangeChange

__all__ = ["BudgetSummary", "CalibrationSummary", "EngineSize", "EngineSpeed"]


@dataclass(frozen=True, kw_only=True)
class EngineSpeed:
    """The median time of a batch in `runs` runs, all engines in turn; an indication: ran-bench measures.

    `fp32_median_ms` is the FP32 graph's on the same backend, `fp32_ratio` the median of the engine's time over that
    beside it: below 1 the engine is faster. None where there is no FP32 graph, or no quick way to an engine of it.
    `noisy` tells of other load on the machine, or a throttled processor.
    """

    backend: str
    batch: int
    runs: int
    median_ms: float
    fp32_median_ms: float | None
    fp32_ratio: float | None
    noisy: bool


@dataclass(frozen=True, kw_only=True)
class EngineSize:
    """Bytes of an engine as it is on this machine, of the graph it is made of, and of the FP32 graph."""

    backend: str
    engine_bytes: int | None
    graph_bytes: int | None
    reference_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class CalibrationSummary:
    """How activation ranges were found, and how far they still moved each time the images were doubled.

    `chosen` says how many tensors took the range of each method, where that was chosen tensor by tensor.
    """

    method: str
    dataset: str
    images: int
    stability: tuple[RangeChange, ...]
    chosen: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BudgetSummary:
    """How it was decided at export what stays in float: see the bundle's manifest for what each field holds.

    `float_multiply_adds` is the share, 0 to 1, of multiply-adds that stay in float.
    """

    max_drop_pp: float
    measure: str
    dataset: str
    images: int
    method_errors: Mapping[str, float]
    regions: tuple[RegionRecord, ...]
    looks: tuple[BudgetLook, ...]
    drops: tuple[BudgetLook, ...]
    float_multiply_adds: float
