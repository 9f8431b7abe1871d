"""What the golden self-test demands of single rows: the label of logits, the direction of an embedding."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ran_deploy.manifest import Task
from ran_deploy.verification.metrics import row_cosines

__all__ = ["ROW_RULES", "RowRule", "allowed_errors", "lowest_cosines"]

# Rounding that falls to the other side stays within a few rows: one of 32 was 0.059 off where the tolerance was 0.042.
ROW_SHARE = 3


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """`certain(recorded, allowed)` are the rows that are judged, `kept(recorded, outputs, allowed)` those that agree.

    Both bool (N,); recorded and outputs are (N, output size), `allowed` the error each row may have, (N,). `fault` says
    what a row that does not agree does, `by_cosine` whether the lowest cosine is worth telling.
    """

    certain: Callable[[np.ndarray, np.ndarray], np.ndarray]
    kept: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    fault: str
    by_cosine: bool


def allowed_errors(recorded: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the norm of the error that `tolerance`, relative to all rows together, allows each row: float64 (N,).

    That is `tolerance` times its own norm, or its share of the whole error where that is more.
    """
    norms = np.linalg.norm(recorded.astype(np.float64), axis=1)
    return tolerance * np.maximum(norms, math.sqrt(np.mean(norms**2)))


def _certain_labels(recorded: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """An error e changes the difference of two logits by at most sqrt(2) * ||e||: no smaller margin is judged."""
    if recorded.shape[1] < 2:
        return np.zeros(len(recorded), bool)
    second, first = np.partition(recorded.astype(np.float64), -2, axis=1)[:, -2:].T
    return first - second > math.sqrt(2) * allowed


def _same_labels(recorded: np.ndarray, outputs: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    del allowed
    return outputs.argmax(axis=1) == recorded.argmax(axis=1)


def _certain_directions(recorded: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """A vector that is no longer than what may be added to it may point anywhere."""
    return ROW_SHARE * allowed < np.linalg.norm(recorded.astype(np.float64), axis=1)


def lowest_cosines(recorded: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return how far each vector may turn, as a cosine: an error e turns v by the angle whose sine is ||e|| / ||v||."""
    norms = np.linalg.norm(recorded.astype(np.float64), axis=1)
    sines = np.minimum(1, ROW_SHARE * allowed / np.maximum(norms, np.finfo(np.float64).tiny))
    return np.sqrt(1 - sines**2)


def _same_directions(recorded: np.ndarray, outputs: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    return row_cosines(recorded, outputs) >= lowest_cosines(recorded, allowed)


ROW_RULES = {
    Task.CLASSIFICATION: RowRule(
        certain=_certain_labels, kept=_same_labels, fault="certain labels differ", by_cosine=False
    ),
    Task.EMBEDDING: RowRule(
        certain=_certain_directions, kept=_same_directions, fault="vectors point elsewhere", by_cosine=True
    ),
}
