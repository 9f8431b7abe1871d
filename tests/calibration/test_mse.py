"""The method of least squares against rounding and clipping every single value."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.calibration.histogram import Histogram
from ran_deploy.calibration.mse import LEVELS, mse_range, squared_errors


def error_of_values(values: np.ndarray, limit: float) -> float:
    """Return the sum of squared errors of symmetric s8 with this range, value by value."""
    scale = limit / LEVELS
    restored = np.clip(np.rint(values.astype(np.float64) / scale), -LEVELS, LEVELS) * scale
    return float(((values - restored) ** 2).sum())


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    for piece in np.array_split(values, 3):
        histogram.add(piece)
    return histogram


DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(50_000),
    "laplace": lambda rng: rng.laplace(size=50_000),
    "relu": lambda rng: np.maximum(rng.standard_normal(50_000), 0),
    "uniform": lambda rng: rng.uniform(-3, 3, 50_000),
    "one outlier": lambda rng: np.concatenate([rng.uniform(-1, 1, 1_000_000), [12.0]]),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_errors_are_those_of_the_single_values(name, rng):
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    limits = float(np.abs(values).max()) * np.array([1, 0.7, 0.4, 0.2, 0.1])
    expected = [error_of_values(values, float(limit)) for limit in limits]
    np.testing.assert_allclose(squared_errors(histogram_of(values), limits), expected, rtol=0.02)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_no_range_of_a_fine_search_is_better_by_more_than_a_fiftieth(name, rng):
    values = DISTRIBUTIONS[name](rng).astype(np.float32)
    maximum = float(np.abs(values).max())
    found = mse_range(histogram_of(values))
    best = min(error_of_values(values, float(limit)) for limit in np.geomspace(maximum / 32, maximum, 150))
    assert error_of_values(values, found) <= 1.02 * best


def test_an_outlier_is_clipped_where_that_costs_less_than_coarse_steps(rng):
    values = rng.uniform(-1, 1, 1_000_000).astype(np.float32)
    values[5] = 12.0  # clipped to 1 it costs 121, kept it costs 1e6 (12 / 127)^2 / 12 = 744
    assert mse_range(histogram_of(values)) < 4
    values[5] = 2.0  # clipped to 1 it costs 1, kept it costs 16 more than needed
    assert mse_range(histogram_of(values)) < 1.2
    assert mse_range(histogram_of(np.append(values[:100], np.float32(12)))) > 11  # few values: the outlier matters
