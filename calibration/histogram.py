"""A histogram of |x| that grows with its data and yet does not depend on their order."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["Histogram"]

BINS = 2**14
SMALLEST_EXPONENT = -100  # values below 2**-100 / BINS share the first bin; keeps bin numbers exact in float32


class Histogram:
    """Counts of |x| in `BINS` equal bins over [0, 2**exponent), with the smallest exponent that holds the maximum.

    When a larger value comes, neighbouring bins are merged, two into one each time the exponent grows by one. As the
    range is always a power of two, that gives the counts a second pass with the final range would give, bit for bit.
    A bin is at most 2 / BINS of the maximum wide. Memory: 8 bytes a bin, whatever is added.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.exponent = SMALLEST_EXPONENT
        self.maximum = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count finite floating-point values of any shape."""
        magnitudes = np.abs(values).ravel()
        self._grow(float(magnitudes.max(initial=0)))
        bins = np.ldexp(magnitudes, int(math.log2(BINS)) - self.exponent).astype(np.intp)
        self.counts += np.bincount(bins, minlength=BINS)

    def quantile(self, q: float) -> float:
        """Return the `q`-quantile of |x|, 0 <= q <= 1, of at least one value.

        It lies between NumPy's (linear interpolation between order statistics) and that plus one bin.
        """
        upper_edges = np.minimum(np.arange(1, BINS + 1) * self.bin_width, self.maximum)
        ends = np.cumsum(self.counts)
        position = q * (int(ends[-1]) - 1)
        below = math.floor(position)
        low, high = upper_edges[np.searchsorted(ends, [below, math.ceil(position)], side="right")].tolist()
        return low + (position - below) * (high - low)

    @property
    def bin_width(self) -> float:
        return math.ldexp(1.0, self.exponent) / BINS

    def _grow(self, maximum: float) -> None:
        self.maximum = max(self.maximum, maximum)
        exponent = max(math.frexp(self.maximum)[1], SMALLEST_EXPONENT)  # maximum < 2**exponent, strictly
        merged = 2 ** min(exponent - self.exponent, int(math.log2(BINS)))
        if merged > 1:
            counts = np.zeros(BINS, np.int64)
            counts[: BINS // merged] = self.counts.reshape(-1, merged).sum(axis=1)
            self.counts = counts
        self.exponent = exponent
