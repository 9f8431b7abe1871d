"""The range with which int8 keeps most of a tensor's distribution: least Kullback-Leibler divergence."""

from __future__ import annotations

import numpy as np

from ran_deploy.calibration.histogram import BINS, Histogram

__all__ = ["divergences", "entropy_range"]

LEVELS = 128  # magnitudes that s8 tells apart
COARSE_BINS = 4096  # of which at least 2048 reach up to the maximum, as many as the source has
STRIDE = 8  # bins between two ranges that are tried: at most 1/256 of the maximum


def entropy_range(histogram: Histogram) -> float:
    """Return the range whose `divergences` are least; of equals, the one that clips less.

    The first bin, where the zeros of a ReLU pile up, counts as much as the second: zero is exact at any scale. A tensor
    of few different values keeps its maximum: a divergence compares densities, and cut an image's white at its black.
    Source: Migacz 2017, 8-bit Inference with TensorRT, GTC, the pseudocode of entropy calibration.
    """
    width = histogram.bin_width * (BINS // COARSE_BINS)
    used = int(histogram.maximum / width) + 1
    counts = histogram.counts.reshape(COARSE_BINS, -1).sum(axis=1)[:used]
    if used <= LEVELS or is_discrete(counts):
        return histogram.maximum
    counts[0] = counts[1]
    kept = np.arange(used, LEVELS - 1, -STRIDE)
    best = int(kept[np.argmin(divergences(counts, kept))])
    return min(best * width, histogram.maximum)


def is_discrete(counts: np.ndarray) -> bool:
    """Return whether, up to the bin below which 99 % of the values lie, fewer than half of the bins hold any."""
    bulk = int(np.searchsorted(counts.cumsum(), 0.99 * counts.sum())) + 1
    return 2 * np.count_nonzero(counts[:bulk]) < bulk


def divergences(counts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return KL(P || Q) in nats where the first `kept` bins share LEVELS levels and the rest is clipped to their end.

    P has the kept bins, all that is beyond them added to the last one; Q spreads what each level holds, without that,
    evenly over the bins of it that P does not leave empty. Infinite where Q is 0 and P is not.
    Shapes: counts (bins,), kept (candidates,) of at least LEVELS bins each -> (candidates,).
    """
    total = float(counts.sum())
    beyond = total - counts.cumsum()[kept - 1]
    last = counts[kept - 1] + beyond
    edges = kept[:, None] * np.arange(LEVELS + 1) // LEVELS
    mass = np.diff(_sums_before(counts)[edges], axis=1)
    filled = np.diff(_sums_before(counts > 0)[edges], axis=1)
    filled[:, -1] += (counts[kept - 1] == 0) & (beyond > 0)
    clipped = mass.astype(np.float64)
    clipped[:, -1] += beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.where(clipped > 0, clipped * np.log(mass / filled), 0).sum(axis=1)
        own = _sums_before(_x_log_x(counts))[kept - 1] + _x_log_x(last)
        result: np.ndarray = (own - spread) / total - np.log(total) + np.log(mass.sum(axis=1))
    return np.where(np.isfinite(result), result, np.inf)


def _sums_before(values: np.ndarray) -> np.ndarray:
    """Return the sum of the first i values, for i from 0 to all."""
    return np.concatenate([np.zeros(1, np.result_type(values, np.int64)), np.cumsum(values)])


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.maximum(x, 1))  # counts: 0 or at least 1
