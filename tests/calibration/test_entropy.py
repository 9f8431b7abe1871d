"""The entropy method against its pseudocode, written out over the values themselves with SciPy's divergence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import entropy

from ran_deploy.calibration.entropy import COARSE_BINS, LEVELS, STRIDE, divergences, entropy_range
from ran_deploy.calibration.histogram import Histogram


def divergence_by_loops(counts: np.ndarray, kept: int) -> float:
    """Return KL(P || Q) as the talk's pseudocode has it: clip, merge into levels, expand, compare."""
    reference = counts[:kept].astype(np.float64)
    reference[-1] += counts[kept:].sum()
    candidate = np.zeros(kept)
    for level in range(LEVELS):
        start, stop = kept * level // LEVELS, kept * (level + 1) // LEVELS
        filled = np.flatnonzero(reference[start:stop]) + start
        if len(filled):
            candidate[filled] = counts[start:stop].sum() / len(filled)
    if not candidate.any():
        return np.inf
    return float(entropy(reference / reference.sum(), candidate / candidate.sum()))


def counts_by_numpy(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the counts of |x| up to the bin of the maximum, and the width of a bin."""
    magnitudes = np.abs(values).astype(np.float64)
    top = 2.0 ** np.frexp(magnitudes.max())[1]
    width = top / COARSE_BINS
    counts, _ = np.histogram(magnitudes, bins=COARSE_BINS, range=(0, top))
    counts = counts[: int(magnitudes.max() / width) + 1]
    counts[0] = counts[1]
    return counts, width


DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(30_000),
    "laplace": lambda rng: rng.laplace(size=30_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(30_000), 0),
    "few values": lambda rng: rng.integers(0, 40, 5000) * 1.5,
    "outliers": lambda rng: np.concatenate([rng.uniform(-1, 1, 30_000), [20.0, -35.0]]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_range_is_that_of_the_least_divergence(name, rng):
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    counts, width = counts_by_numpy(values)
    kept = np.arange(len(counts), LEVELS - 1, -STRIDE)
    expected = np.array([divergence_by_loops(counts, int(bins)) for bins in kept])
    found = divergences(counts, kept)
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-7, atol=1e-11)
    histogram = Histogram()
    for piece in np.array_split(values, 4):
        histogram.add(piece)
    limit = min(kept[np.argmin(expected)] * width, float(np.abs(values).max()))
    assert entropy_range(histogram) == pytest.approx(limit, rel=1e-12)


def test_a_long_thin_tail_is_clipped_and_a_uniform_tensor_is_not(rng):
    tail, flat = Histogram(), Histogram()
    tail.add(np.concatenate([rng.standard_normal(200_000), [100.0]]).astype(np.float32))
    flat.add(rng.uniform(-1, 1, 200_000).astype(np.float32))
    assert 3 < entropy_range(tail) < 12
    assert entropy_range(flat) > 0.97
