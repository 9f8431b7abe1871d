"""The histogram is exact about counts, independent of order, and within one bin of NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.calibration.histogram import BINS, Histogram


def histogram_of(*arrays: np.ndarray) -> Histogram:
    histogram = Histogram()
    for array in arrays:
        histogram.add(array)
    return histogram


@pytest.fixture
def growing(rng: np.random.Generator) -> list[np.ndarray]:
    """Pieces of which each reaches further than the one before: 20 powers of two in all."""
    return [(rng.standard_normal((3, 5, 7)) * 4.0**i).astype(np.float32) for i in range(10)]


def test_counts_are_those_of_a_second_pass_over_the_final_range(growing):
    histogram = histogram_of(*growing)
    everything = np.abs(np.concatenate([piece.ravel() for piece in growing]))
    expected, _ = np.histogram(everything, bins=BINS, range=(0, BINS * histogram.bin_width))
    np.testing.assert_array_equal(histogram.counts, expected)
    assert histogram.maximum == everything.max() < BINS * histogram.bin_width


def test_order_changes_nothing(growing):
    forward, backward = histogram_of(*growing), histogram_of(*growing[::-1])
    assert forward.exponent == backward.exponent
    np.testing.assert_array_equal(forward.counts, backward.counts)


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9, 0.999, 0.9999, 1.0])
@pytest.mark.parametrize("size", [1, 2, 101, 20_001])
def test_quantile_is_at_most_one_bin_above_numpy(rng, q, size):
    values = rng.laplace(scale=3.0, size=size).astype(np.float32)
    histogram = histogram_of(*np.array_split(values, 3))
    exact = float(np.quantile(np.abs(values).astype(np.float64), q))
    assert exact * (1 - 1e-12) <= histogram.quantile(q) <= exact + histogram.bin_width
    assert histogram.bin_width <= 2 / BINS * np.abs(values).max()


@pytest.mark.parametrize("value", [0.0, 1e-45, 2.0**-126, 1.0, 65504.0, 3.4028235e38])
def test_the_extremes_of_float32_are_counted(value):
    histogram = histogram_of(np.full((2, 3), -value, np.float32))
    assert histogram.counts.sum() == 6
    assert histogram.quantile(0.5) == float(np.float32(value))


def test_a_jump_over_the_whole_resolution_keeps_every_count():
    histogram = histogram_of(np.full(5, 1e-6, np.float32), np.full(2, 1e6, np.float32))
    assert histogram.counts[0] == 5
    assert histogram.counts.sum() == 7
