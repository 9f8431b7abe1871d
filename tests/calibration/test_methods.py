"""The rules of methods agree with NumPy on the whole tensor, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.calibration.histogram import Histogram
from ran_deploy.calibration.methods import PERCENTILE, RANGE_RULES, CalibrationMethod


def range_of(method: CalibrationMethod, *pieces: np.ndarray) -> float:
    histogram = Histogram()
    for piece in pieces:
        histogram.add(piece)
    return RANGE_RULES[method](histogram)


def test_minmax_is_the_largest_magnitude_of_either_sign(rng):
    pieces = [rng.standard_normal((n, 5, 3, 4)).astype(np.float32) * n for n in (3, 1, 7)]
    pieces[1][0, 2, 1, 3] = -50.5
    assert range_of(CalibrationMethod.MINMAX, *pieces) == 50.5


def test_percentile_is_within_one_bin_of_numpy(rng):
    pieces = [rng.laplace(size=(4, 9, 11, 13)).astype(np.float32) for _ in range(5)]
    magnitudes = np.abs(np.stack(pieces)).astype(np.float64)
    exact = np.percentile(magnitudes, PERCENTILE)
    found = range_of(CalibrationMethod.PERCENTILE, *pieces)
    assert exact * (1 - 1e-12) <= found <= exact + magnitudes.max() / 8192


def test_percentile_ignores_an_outlier_that_minmax_keeps(rng):
    values = rng.uniform(-1, 1, 100_000).astype(np.float32)
    values[7] = 1000.0
    assert range_of(CalibrationMethod.MINMAX, values) == 1000.0
    assert range_of(CalibrationMethod.PERCENTILE, values) < 1.2


@pytest.mark.parametrize("method", RANGE_RULES)
def test_a_tensor_of_zeros_has_range_zero(method):
    assert range_of(method, np.zeros((2, 3, 4), np.float32)) == 0.0


@pytest.mark.parametrize("method", RANGE_RULES)
@pytest.mark.parametrize("value", [1e-30, 0.37, 1.0, -6e4])
def test_a_constant_tensor_keeps_its_value(method, value):
    values = np.full((3, 5), value, np.float32)
    assert range_of(method, values) == float(np.abs(values).max())


@pytest.mark.parametrize("method", RANGE_RULES)
def test_a_scaled_tensor_has_a_scaled_range(method, rng):
    values = rng.laplace(size=20_000).astype(np.float32)
    assert range_of(method, values * np.float32(0.25)) == range_of(method, values) / 4


@pytest.mark.parametrize("method", RANGE_RULES)
def test_no_range_is_beyond_the_maximum(method, rng):
    values = np.maximum(rng.standard_normal(5000), 0).astype(np.float32)
    assert 0 < range_of(method, values) <= values.max()
