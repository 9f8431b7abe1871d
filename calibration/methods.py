"""The ways to choose the range of a tensor, and the rule of each that follows from the tensor's values alone."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ran_deploy.calibration.entropy import entropy_range
from ran_deploy.calibration.histogram import Histogram
from ran_deploy.calibration.mse import mse_range

__all__ = ["PERCENTILE", "RANGE_RULES", "CalibrationMethod", "percentile_range"]

PERCENTILE = 99.99  # of |x|, per tensor


class CalibrationMethod(str, Enum):
    """How the range of a tensor follows from its values; AUTO chooses among the others, tensor by tensor."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"
    AUTO = "auto"


def minmax_range(histogram: Histogram) -> float:
    """Return the largest |x| that was seen: nothing is clipped."""
    return histogram.maximum


def percentile_range(histogram: Histogram) -> float:
    """Return the `PERCENTILE` of |x| over all values: the few beyond it are clipped.

    At most 1/8192 of the largest |x| above NumPy's percentile, and never below it: see `Histogram`.
    """
    return histogram.quantile(PERCENTILE / 100)


# From a histogram of at least one value: the largest |x| that int8 shall represent, 0 where all were zero.
RANGE_RULES: dict[CalibrationMethod, Callable[[Histogram], float]] = {
    CalibrationMethod.MINMAX: minmax_range,
    CalibrationMethod.PERCENTILE: percentile_range,
    CalibrationMethod.ENTROPY: entropy_range,
    CalibrationMethod.MSE: mse_range,
}
