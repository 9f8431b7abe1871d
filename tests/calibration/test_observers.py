"""Observers agree with NumPy on the whole tensor, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.calibration.observers import OBSERVERS, CalibrationMethod, MinMaxObserver, PercentileObserver
from ran_deploy.errors import ConfigError


@pytest.fixture
def pieces(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.standard_normal((n, 5, 3, 4)).astype(np.float32) * n for n in (3, 1, 7)]


def test_minmax_is_the_largest_magnitude_of_either_sign(pieces):
    pieces[1][0, 2, 1, 3] = -50.5
    observer = MinMaxObserver()
    for piece in pieces:
        observer.update(piece)
    assert observer.range() == 50.5


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99, 100.0])
def test_percentile_is_within_one_bin_of_numpy(rng, percentile):
    pieces = [rng.laplace(size=(4, 9, 11, 13)).astype(np.float32) for _ in range(5)]
    observer = PercentileObserver(percentile)
    for piece in pieces:
        observer.update(piece)
    magnitudes = np.abs(np.stack(pieces)).astype(np.float64)
    exact = np.percentile(magnitudes, percentile)
    assert exact * (1 - 1e-12) <= observer.range() <= exact + magnitudes.max() / 8192


def test_percentile_ignores_an_outlier_that_minmax_keeps(rng):
    values = rng.uniform(-1, 1, 100_000).astype(np.float32)
    values[7] = 1000.0
    percentile, minmax = PercentileObserver(), MinMaxObserver()
    percentile.update(values)
    minmax.update(values)
    assert minmax.range() == 1000.0
    assert percentile.range() < 1.2


@pytest.mark.parametrize("method", CalibrationMethod)
def test_a_tensor_of_zeros_has_range_zero(method):
    observer = OBSERVERS[method]()
    observer.update(np.zeros((2, 3, 4), np.float32))
    assert observer.range() == 0.0


@pytest.mark.parametrize("percentile", [50.0, 100.1, float("nan")])
def test_a_percentile_that_makes_no_sense_is_refused(percentile):
    with pytest.raises(ConfigError, match=r"choose a value in \(50, 100\]"):
        PercentileObserver(percentile)
