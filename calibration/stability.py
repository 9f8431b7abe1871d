"""Whether there were images enough: how far the ranges still move when the images double."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ran_deploy.manifest import RangeChange

__all__ = ["range_changes"]


def range_changes(ranges: Mapping[int, Mapping[str, float]]) -> tuple[RangeChange, ...]:
    """Return the change between each number of images and the next; `ranges` has the same tensors at each, ascending.

    A tensor that is zero throughout did not move; one that was zero and is no more moved by 1.
    """
    steps = list(ranges.items())
    return tuple(
        _change(before, after, images_before=images_before, images=images)
        for (images_before, before), (images, after) in itertools.pairwise(steps)
    )


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
