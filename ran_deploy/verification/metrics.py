"""How far two sets of outputs (N, classes or features) are apart, and how often logits name the right class.

Sums run in float64. Every error can be gathered batch by batch: sum the `ErrorSums` of the batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import ShapeError

__all__ = [
    "ErrorSums",
    "LogitErrors",
    "agreeing",
    "error_sums",
    "logit_errors",
    "relative_l2",
    "row_cosines",
    "top_k_correct",
]


@dataclass(frozen=True)
class ErrorSums:
    """What all logit errors follow from, over any number of batches; `+` joins two."""

    reference: float = 0.0  # sum of reference ** 2
    output: float = 0.0  # sum of output ** 2
    product: float = 0.0  # sum of reference * output
    error: float = 0.0  # sum of (output - reference) ** 2
    max_abs: float = 0.0  # max |output - reference|

    def __add__(self, other: ErrorSums) -> ErrorSums:
        return ErrorSums(
            self.reference + other.reference,
            self.output + other.output,
            self.product + other.product,
            self.error + other.error,
            max(self.max_abs, other.max_abs),
        )


@dataclass(frozen=True, kw_only=True)
class LogitErrors:
    """Distances of outputs from their reference, over all elements together.

    `relative_l2` is ||output - reference|| / ||reference||: 0 for equal, None for a zero reference met by something
    else. `sqnr_db` is 10 log10(||reference||^2 / ||output - reference||^2): None where there is no error, nothing but
    error, or something that is not finite. `cosine` is 1 for two zero vectors and 0 for one; alone it proves nothing:
    it cannot see a wrong scale.
    """

    max_abs: float
    relative_l2: float | None
    cosine: float
    sqnr_db: float | None


def error_sums(reference: np.ndarray, output: np.ndarray) -> ErrorSums:
    """Return the sums of one batch; both arrays have one shape, any. Raises: ShapeError."""
    if reference.shape != output.shape:
        raise ShapeError(f"Logits of shape {output.shape} cannot be compared with a reference of {reference.shape}.")
    expected, found = reference.astype(np.float64).ravel(), output.astype(np.float64).ravel()
    error = found - expected
    return ErrorSums(
        reference=float(expected @ expected),
        output=float(found @ found),
        product=float(expected @ found),
        error=float(error @ error),
        max_abs=float(np.abs(error).max(initial=0)),
    )


def logit_errors(sums: ErrorSums) -> LogitErrors:
    """Return the distances that `sums` amount to."""
    norms = math.sqrt(sums.reference) * math.sqrt(sums.output)
    relative = _relative_l2(sums)
    return LogitErrors(
        max_abs=sums.max_abs,
        relative_l2=relative if math.isfinite(relative) else None,
        cosine=min(1.0, max(-1.0, sums.product / norms)) if norms else float(sums.reference == sums.output),
        sqnr_db=_sqnr_db(sums),
    )


def _sqnr_db(sums: ErrorSums) -> float | None:
    if not (0 < sums.reference < math.inf and 0 < sums.error < math.inf):  # NaN is neither
        return None
    return 10 * math.log10(sums.reference / sums.error)


def relative_l2(reference: np.ndarray, output: np.ndarray) -> float:
    """Return ||output - reference|| / ||reference|| over all elements: infinite where only the reference is zero."""
    return _relative_l2(error_sums(reference, output))


def _relative_l2(sums: ErrorSums) -> float:
    if sums.reference == 0:
        return 0.0 if sums.error == 0 else math.inf
    return math.sqrt(sums.error) / math.sqrt(sums.reference)


def row_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of the angle between each row of two (N, F) arrays: float64 (N,).

    As in `LogitErrors` it is 1 for two zero rows and 0 for one; NaN where a value is.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.clip((a * b).sum(axis=1) / np.where(norms == 0, 1, norms), -1, 1)
    return np.where(norms == 0, (a == b).all(axis=1).astype(np.float64), products)


def agreeing(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return for each row of two (N, classes) arrays whether their largest logits are at one index: bool (N,)."""
    return reference.argmax(axis=1) == output.argmax(axis=1)


def top_k_correct(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Return whether each label (N,) is among the `k` largest of its row of `logits` (N, classes): bool (N,).

    Of equal logits the lower index ranks first, as with argmax. With no more than `k` classes all are correct.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return rank < k
