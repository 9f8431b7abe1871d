"""Whether there were images enough: how far the ranges still move when the images double."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ran_deploy.manifest import RangeChange

__all__ = ["describe_stability", "has_settled", "range_changes"]

SETTLED_MEDIAN, SETTLED_WORST = 0.1, 0.5  # 16 to 512 images of the demo net: at most 0.06 and 0.41 at the last doubling


def range_changes(ranges: Mapping[int, Mapping[str, float]]) -> tuple[RangeChange, ...]:
    """Return the change between each number of images and the next; `ranges` has the same tensors at each, ascending.

    A tensor that is zero throughout did not move; one that was zero and is no more moved by 1.
    """
    steps = list(ranges.items())
    return tuple(
        _change(before, after, images_before=images_before, images=images)
        for (images_before, before), (images, after) in itertools.pairwise(steps)
    )


def has_settled(change: RangeChange) -> bool:
    """Return whether doubling the images moved the ranges so little that more of them would hardly matter."""
    return change.median <= SETTLED_MEDIAN and change.worst <= SETTLED_WORST


def describe_stability(change: RangeChange) -> str:
    """Return the change as a sentence for people, with what to do where the ranges have not settled."""
    moved = (
        f"going from {change.images_before:,} to {change.images:,} images moved them by {100 * change.median:.1f} % "
        f"(median), {100 * change.worst:.0f} % at most"
    )
    if has_settled(change):
        return f"ranges settled: {moved}"
    return f"ranges have not settled: {moved} ({change.worst_tensor!r}). Give more images, see --calibration-images"


def _change(before: Mapping[str, float], after: Mapping[str, float], *, images_before: int, images: int) -> RangeChange:
    moved = {name: abs(before[name] - limit) / limit if limit else 0.0 for name, limit in after.items()}
    worst = max(moved, key=moved.__getitem__)
    return RangeChange(
        images_before=images_before,
        images=images,
        median=float(np.median(list(moved.values()))),
        worst=moved[worst],
        worst_tensor=worst,
    )
