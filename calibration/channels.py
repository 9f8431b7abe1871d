"""How large each channel of a tensor gets, over all calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ran_deploy.calibration.collect import rebatched

__all__ = ["ChannelSizes", "collect_channel_sizes"]


@dataclass(frozen=True)
class ChannelSizes:
    """The largest |x| of each channel and its mean x^2 over all images and pixels, float64 (C,) both."""

    largest: np.ndarray
    mean_square: np.ndarray


def collect_channel_sizes(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    batches: Iterable[np.ndarray],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, ChannelSizes]:
    """Return the sizes of the channels of each tensor (N, C, ...) that `run` returns, from one pass.

    `run` and `batches` as for `collect_ranges`; `progress` hears the number of images done so far.
    """
    largest: dict[str, np.ndarray] = {}
    squares: dict[str, np.ndarray] = {}
    images = 0
    for batch in rebatched(batches):
        for name, array in run(batch).items():
            others = (0, *range(2, array.ndim))
            found = np.abs(array).max(axis=others).astype(np.float64)
            # A mean over pixels, as a sum over images: the last batch may be smaller.
            square = np.square(array, dtype=np.float64).mean(axis=others) * len(array)
            largest[name] = np.maximum(largest.get(name, found), found)
            squares[name] = squares.get(name, 0.0) + square
        images += len(batch)
        if progress is not None:
            progress(images)
    return {name: ChannelSizes(found, squares[name] / images) for name, found in largest.items()}
