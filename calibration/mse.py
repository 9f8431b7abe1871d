"""The range with which symmetric int8 is nearest to a tensor's values: least squared rounding and clipping error."""

from __future__ import annotations

import numpy as np

from ran_deploy.calibration.histogram import BINS, Histogram

__all__ = ["mse_range", "squared_errors"]

LEVELS = 127  # steps of symmetric s8 from zero to the range
OCTAVES = 5  # below the maximum / 32 a step is less than two bins wide, and the histogram cannot see its rounding
STEPS = 24  # ranges tried in each octave: 2.9 % apart


def mse_range(histogram: Histogram) -> float:
    """Return the range, between the maximum and 1/32 of it, of least `squared_errors`; of equals, the largest."""
    if histogram.maximum == 0:
        return 0.0
    limits = histogram.maximum * 2.0 ** (-np.arange(OCTAVES * STEPS + 1) / STEPS)
    return float(limits[np.argmin(squared_errors(histogram, limits))])


def squared_errors(histogram: Histogram, limits: np.ndarray) -> np.ndarray:
    """Return the sum of (x - q(x))^2 over all values, q being symmetric s8 with each range.

    Values count as the middle of their bin, those of the first as zero. Each level gives the sum of (c - k s)^2 over
    its bins, which three running sums tell without a look at the single bins.
    Shapes: limits (candidates,), positive -> (candidates,).
    """
    centres = np.minimum((np.arange(BINS) + 0.5) * histogram.bin_width, histogram.maximum)
    centres[0] = 0
    scales, levels = limits[:, None] / LEVELS, np.arange(LEVELS + 1)
    starts = np.searchsorted(centres, (levels - 0.5) * scales)  # the first bin of each level; the last takes the rest
    ends = np.concatenate([starts[:, 1:], np.full((len(limits), 1), BINS)], axis=1)
    number, first = (_running(histogram.counts * centres**power) for power in (0, 1))
    second = float(histogram.counts @ centres**2)
    cross = ((first[ends] - first[starts]) * levels * scales).sum(axis=1)
    square = ((number[ends] - number[starts]) * (levels * scales) ** 2).sum(axis=1)
    result: np.ndarray = second - 2 * cross + square
    return result


def _running(values: np.ndarray) -> np.ndarray:
    """Return the sum of the first i values, for i from 0 to all."""
    return np.concatenate([[0.0], np.cumsum(values)])
