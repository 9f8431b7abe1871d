"""What the golden self-test demands of soft masks: each module's are those recorded for the engine's graph."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import ShapeError
from ran_deploy.manifest import AttentionRecord
from ran_deploy.verification.attention import split_rows
from ran_deploy.verification.metrics import relative_l2

__all__ = ["MaskTest", "mask_test"]


@dataclass(frozen=True, kw_only=True)
class MaskTest:
    """The relative L2 distance of each module's 1 + M over all golden inputs, infinite where one is not finite."""

    distances: Mapping[str, float]
    tolerance: float

    @property
    def passed(self) -> bool:
        return max(self.distances.values()) <= self.tolerance

    def joined(self, summary: str) -> str:
        """Return the line on the logits, which passed, with what the masks add to it."""
        worst = max(self.distances, key=lambda name: self.distances[name])
        if self.passed:
            return f"{summary}, of attention at most {self.distances[worst]:.4f}"
        found = f"is {self.distances[worst]:.4f}, {self.tolerance:.4f} is allowed"
        reason = found if math.isfinite(self.distances[worst]) else "is unknown, as values are NaN or infinite"
        return f"golden self-test failed in the attention of {worst}: relative L2 {reason}"


def mask_test(
    recorded: np.ndarray, found: np.ndarray, records: Sequence[AttentionRecord], tolerance: float
) -> MaskTest:
    """Compare masks, as `rows_from_masks` gives them, with the recorded ones, both (N, positions of all modules).

    What is held against `tolerance`, that of the logits, is 1 + M, the factor of the trunk: the mean of unit vectors
    over channels is small next to its terms, and right evaluations of one graph were 0.036 of it apart.
    Raises: ShapeError for masks of another network.
    """
    if recorded.shape != found.shape:
        raise ShapeError(
            f"The engine puts out masks of shape {found.shape}; {recorded.shape} was recorded. It belongs to another "
            "network: build it again."
        )
    distances = {
        record.name: relative_l2(1 + pair[0].astype(np.float64), 1 + pair[1].astype(np.float64))
        if np.isfinite(pair).all()
        else math.inf
        for record, *pair in zip(records, split_rows(recorded, records), split_rows(found, records), strict=True)
    }
    return MaskTest(distances=distances, tolerance=tolerance)
