"""Layer by layer: how far a quantised graph is from FP32, and what its ranges cut off. Sums run batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.verification.metrics import ErrorSums, LogitErrors, error_sums, logit_errors

__all__ = [
    "HISTOGRAM_BINS",
    "InputRange",
    "LayerError",
    "LayerErrors",
    "MagnitudeHistogram",
    "RangeUse",
    "TensorDistances",
    "furthest",
    "magnitude_counts",
    "range_use",
]

HISTOGRAM_BINS = 60
MOST_WORST = 10


@dataclass(frozen=True, kw_only=True)
class InputRange:
    """What a layer's quantised input can hold against what FP32 puts there.

    Numbers from `low` to `high` are represented; `largest` is the largest |x| seen, `used` that over the largest |x|
    represented: above 1 the range is cut into, far below 1 it is wasted. `clipped` is the share of values, 0 to 1, that
    are cut off by more than rounding.
    """

    tensor: str
    low: float
    high: float
    largest: float
    used: float
    clipped: float


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """One layer: its output in the engine's graph against FP32, with all that was lost on the way there.

    `name` is the path of its module, `stage` the part of the network, `branch` 'mask' for layers that serve a soft mask
    alone, else 'trunk'. `sqnr_db` is None where there is no error, or nothing but error; `relative_l2` is None for a
    zero reference met by something else. `input` is None where the layer computes in float.
    """

    name: str
    stage: str
    branch: str
    operator: str
    tensor: str
    relative_l2: float | None
    sqnr_db: float | None
    input: InputRange | None


@dataclass(frozen=True, kw_only=True)
class MagnitudeHistogram:
    """How often each |x| occurs in a quantised tensor of the FP32 graph: equal bins from 0 to `end`.

    `limit` is the largest |x| that int8 represents there.
    """

    layer: str
    tensor: str
    end: float
    limit: float
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LayerErrors:
    """The layers of one engine's graph, from the input to the output, on `images` of `source`.

    `worst` are the layers furthest from FP32, by index in `layers`, the worst first; `histograms` are of the inputs of
    the first few of them. The graph is evaluated exactly as written: an engine may fuse and round elsewhere.
    """

    dialect: str
    images: int
    source: str
    layers: tuple[LayerError, ...]
    worst: tuple[int, ...]
    histograms: tuple[MagnitudeHistogram, ...]


@dataclass(frozen=True)
class RangeUse:
    """What a range is measured by, over any number of batches; `+` joins two."""

    values: int = 0
    clipped: int = 0
    largest: float = 0.0

    def __add__(self, other: RangeUse) -> RangeUse:
        return RangeUse(self.values + other.values, self.clipped + other.clipped, max(self.largest, other.largest))


class TensorDistances:
    """Gathers the distance of tensors from their FP32 namesakes, by name; memory does not grow with the batches."""

    def __init__(self) -> None:
        self._sums: dict[str, ErrorSums] = {}

    def add(self, reference: Mapping[str, np.ndarray], output: Mapping[str, np.ndarray]) -> None:
        """Add one batch of the tensors that `output` has. Raises: ShapeError."""
        for name, found in output.items():
            self._sums[name] = self._sums.get(name, ErrorSums()) + error_sums(reference[name], found)

    def errors(self) -> dict[str, LogitErrors]:
        """Return how far each tensor is from its namesake."""
        return {name: logit_errors(sums) for name, sums in self._sums.items()}


def range_use(values: np.ndarray, low: float, high: float, scale: float) -> RangeUse:
    """Return how one batch of a tensor uses the range from `low` to `high`, of steps of `scale`.

    Values up to half a step outside are rounded to its ends and not counted as cut off.
    """
    outside = (values > high + scale / 2) | (values < low - scale / 2)
    return RangeUse(values.size, int(np.count_nonzero(outside)), float(np.abs(values).max(initial=0)))


def magnitude_counts(values: np.ndarray, end: float) -> np.ndarray:
    """Return how many |x| lie in each of HISTOGRAM_BINS equal bins over [0, end]: int64; larger ones are left out."""
    return np.histogram(np.abs(values), bins=HISTOGRAM_BINS, range=(0, end))[0].astype(np.int64)


def furthest(layers: Sequence[LayerError]) -> tuple[int, ...]:
    """Return the indices of the layers with the largest relative L2, the largest first, at most MOST_WORST."""
    moved = [index for index, layer in enumerate(layers) if layer.relative_l2 != 0]
    return tuple(sorted(moved, key=lambda index: -_size(layers[index].relative_l2))[:MOST_WORST])


def _size(relative_l2: float | None) -> float:
    return math.inf if relative_l2 is None else relative_l2
