"""Searching a line of cuts through a network for the place where two evaluations of it part.

Errors are relative L2. Two right evaluations of an INT8 graph drift apart: a rounding that falls to the other side is
carried on and amplified, so the error grows smoothly from cut to cut. A region that is evaluated alone, on equal
inputs, adds next to nothing (in healthy OpenVINO and ONNX Runtime engines of the demo net at most 0.0021 in INT8 and
0.0034 in FP16, where the whole comes to 0.008 and 0.010): a fault stands out there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

__all__ = ["Scan", "alone_limit", "first_beyond", "first_that", "scan"]

COARSE = 0.005  # a half more than the worst region of healthy engines
TYPICAL = 5  # times the median region: an engine that is coarse everywhere is at fault nowhere in particular
Name = TypeVar("Name")


def alone_limit(errors: Sequence[float], tolerance: float) -> float:
    """Return the error beyond which a region counts as faulty, given the `errors` of all regions, each alone.

    Independent errors of tolerance / sqrt(regions) each would come to `tolerance` together; with many regions that is
    less than a healthy one may have. An engine that is coarser throughout gets 5 times its median, but no region alone
    may be further off than the whole. NaN stands for a region that could not be evaluated.
    """
    known = [error for error in errors if not math.isnan(error)]
    typical = float(np.median(known)) if known else 0.0
    return max(tolerance / math.sqrt(max(1, len(errors))), COARSE, min(TYPICAL * typical, tolerance))


def first_beyond(names: Iterable[Name], error_of: Callable[[Name], float], limit: float) -> tuple[Name, float] | None:
    """Return the first of `names` whose error exceeds `limit`, with the error; what comes later is not evaluated.

    NaN, what could not be evaluated, proves nothing.
    """
    for name in names:
        error = error_of(name)
        if error > limit:
            return name, error
    return None


@dataclass(frozen=True)
class Scan:
    """Errors by index of the cut, as far as evaluated, in order; and the index of the first beyond the limit."""

    errors: dict[int, float]
    first: int | None


def scan(cuts: int, error_of: Callable[[int], float], limit: float, *, samples: int) -> Scan:
    """Evaluate at most `samples` of `cuts` cuts, evenly spread with the last among them, then those that decide.

    These are the cuts before the first sample beyond `limit`, back to the sample before: an error that stays, once it
    is beyond, is found where it began.
    """
    errors = {index: error_of(index) for index in spread_over(cuts, samples)}
    beyond = next((index for index, error in errors.items() if error > limit), None)
    if beyond is None:
        return Scan(errors, None)
    before = max((index for index in errors if index < beyond), default=-1)
    between = first_beyond(range(before + 1, beyond), lambda index: errors.setdefault(index, error_of(index)), limit)
    return Scan(dict(sorted(errors.items())), between[0] if between else beyond)


def spread_over(count: int, samples: int) -> list[int]:
    """Return at most `samples` of the indices below `count`, evenly spread, the last among them."""
    chosen = min(count, samples)
    return sorted({count - 1 - index * count // chosen for index in range(chosen)})


def first_that(candidates: Iterable[Name], holds: Callable[[Name], bool]) -> Name | None:
    """Return the first candidate of which `holds` is true, None if it is of none; later ones are not asked about."""
    return next((candidate for candidate in candidates if holds(candidate)), None)
