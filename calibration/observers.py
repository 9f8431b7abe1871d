"""What watches one tensor while images pass, and says which range int8 shall cover."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

import numpy as np

from ran_deploy.calibration.histogram import Histogram
from ran_deploy.errors import ConfigError

__all__ = ["OBSERVERS", "CalibrationMethod", "MinMaxObserver", "Observer", "PercentileObserver"]


class CalibrationMethod(str, Enum):
    """How the range of a tensor follows from its values."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"


class Observer(Protocol):
    """Sees a tensor's values once, in any number of pieces, and keeps a bounded summary of them."""

    def update(self, array: np.ndarray) -> None:
        """Take further finite values, of any shape."""
        ...

    def range(self) -> float:
        """Return the largest |x| that int8 shall represent; 0 for a tensor that was always zero."""
        ...


class MinMaxObserver:
    """The largest |x| that was seen: nothing is clipped."""

    def __init__(self) -> None:
        self._maximum = 0.0

    def update(self, array: np.ndarray) -> None:
        self._maximum = max(self._maximum, float(np.abs(array).max(initial=0)))

    def range(self) -> float:
        return self._maximum


class PercentileObserver:
    """A percentile of |x| over all values of the tensor: the few beyond it are clipped.

    At most 1/8192 of the largest |x| above NumPy's percentile, and never below it: see `Histogram`.
    """

    def __init__(self, percentile: float = 99.99) -> None:
        if not 50.0 < percentile <= 100.0:
            raise ConfigError(f"The calibration percentile is {percentile}; choose a value in (50, 100].")
        self._quantile = percentile / 100
        self._histogram = Histogram()

    def update(self, array: np.ndarray) -> None:
        self._histogram.add(array)

    def range(self) -> float:
        return self._histogram.quantile(self._quantile) if self._histogram.counts.any() else 0.0


OBSERVERS: dict[CalibrationMethod, Callable[[], Observer]] = {
    CalibrationMethod.MINMAX: MinMaxObserver,
    CalibrationMethod.PERCENTILE: PercentileObserver,
}
