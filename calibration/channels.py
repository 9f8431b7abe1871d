"""The largest value of each channel of a tensor, over all calibration images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ran_deploy.calibration.collect import rebatched

__all__ = ["collect_channel_maxima"]


def collect_channel_maxima(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    batches: Iterable[np.ndarray],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Return for each tensor (N, C, ...) that `run` returns the largest value of every channel, (C,).

    `run` and `batches` as for `collect_ranges`; `progress` hears the number of images done so far.
    """
    maxima: dict[str, np.ndarray] = {}
    images = 0
    for batch in rebatched(batches):
        for name, array in run(batch).items():
            found = array.max(axis=(0, *range(2, array.ndim)))
            maxima[name] = np.maximum(maxima[name], found) if name in maxima else found
        images += len(batch)
        if progress is not None:
            progress(images)
    return maxima
