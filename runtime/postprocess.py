"""From logits to predictions, from features to vectors of one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import ConfigError

__all__ = ["Prediction", "l2_normalized", "softmax", "top_k"]


@dataclass(frozen=True)
class Prediction:
    """One class a network proposes; `label` is None where the bundle names no classes."""

    index: int
    label: str | None
    probability: float
    logit: float


def l2_normalized(vectors: np.ndarray) -> np.ndarray:
    """Return the rows of float32 (N, features) with L2 norm 1; a row of zeros stays one."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, classes) in float64, each row summing to 1, without overflow for any finite logits."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def top_k(logits: np.ndarray, k: int, labels: Sequence[str] | None = None) -> list[list[Prediction]]:
    """Return the `k` likeliest classes of each row of `logits` (N, classes), the likeliest first.

    Equal logits come by index; `k` beyond the number of classes means all. Raises: ConfigError if `k` is not positive.
    """
    if k < 1:
        raise ConfigError(f"top-k is {k}; choose 1 or more.")
    order = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return [
        [Prediction(i, labels[i] if labels else None, float(p[i]), float(row[i])) for i in best.tolist()]
        for row, p, best in zip(logits, softmax(logits), order, strict=True)
    ]
