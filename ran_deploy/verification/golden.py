"""The golden self-test: does an engine, on this very device, reproduce the logits recorded for its graph?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import ShapeError
from ran_deploy.verification.metrics import relative_l2

__all__ = ["BatchCheck", "SelfTestResult", "golden_batch_sizes", "self_test"]

TOLERANCE = 0.03  # engines of one INT8 graph differ by up to 0.022 (OpenVINO against ONNX Runtime)
SPREADS = 3


@dataclass(frozen=True, kw_only=True)
class BatchCheck:
    """The golden inputs run at one batch size.

    `relative_l2` is None where an output is not finite. `labels` counts the rows whose label has to be the recorded
    one, `wrong_labels` those of them where it is not.
    """

    batch_size: int
    relative_l2: float | None
    labels: int
    wrong_labels: int
    passed: bool


@dataclass(frozen=True, kw_only=True)
class SelfTestResult:
    """Passed if every batch size did; `summary` is one line for people."""

    passed: bool
    tolerance: float
    batches: tuple[BatchCheck, ...]
    summary: str


def self_test(
    infer: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    recorded: np.ndarray,
    *,
    spread: float,
    max_batch: int,
) -> SelfTestResult:
    """Compare `infer` of the golden `inputs`, uint8 (N, H, W, 3), with the `recorded` logits, float32 (N, classes).

    At each batch size of `golden_batch_sizes` two things must hold, with t = max(0.03, 3 * spread), where `spread` is
    the relative L2 distance that two evaluations of the graph had at export:
    - relative L2 over all logits is at most t;
    - the label is the recorded one wherever the recorded margin, first logit minus second, exceeds
      sqrt(2) * t * max(row norm, root mean square of all row norms). An error e of a row changes the difference of two
      of its logits by at most sqrt(2) * ||e||, and t allows a row an error of t times its own norm, or its share of
      the whole error. Below that margin another label is no proof of a fault.
    Every batch is full: inputs are repeated, in order, to fill the last one and those larger than N.
    Raises: ShapeError if there are no golden inputs, or not as many as recorded logits.
    """
    if not len(inputs) or len(inputs) != len(recorded):
        raise ShapeError(f"There are {len(inputs)} golden inputs for {len(recorded)} recorded logits. Export again.")
    tolerance = max(TOLERANCE, SPREADS * spread)
    certain = _certain_rows(recorded, tolerance)
    batches = tuple(
        _check_batch(infer, inputs, recorded, certain, tolerance, size) for size in golden_batch_sizes(max_batch)
    )
    return SelfTestResult(
        passed=all(batch.passed for batch in batches),
        tolerance=tolerance,
        batches=batches,
        summary=_summary(batches, tolerance),
    )


def golden_batch_sizes(max_batch: int) -> tuple[int, ...]:
    """Return 1, the largest, and one between them that fills the largest only in part, as far as they differ."""
    return tuple(sorted({1, max_batch // 2 + 1, max_batch}))


def _certain_rows(recorded: np.ndarray, tolerance: float) -> np.ndarray:
    """Return where the recorded label must be reproduced: bool (N,). See `self_test`."""
    logits = recorded.astype(np.float64)
    if logits.shape[1] < 2:
        return np.zeros(len(logits), bool)
    second, first = np.partition(logits, -2, axis=1)[:, -2:].T
    norms = np.linalg.norm(logits, axis=1)
    allowed = tolerance * np.maximum(norms, math.sqrt(np.mean(norms**2)))
    return first - second > math.sqrt(2) * allowed


def _check_batch(
    infer: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    recorded: np.ndarray,
    certain: np.ndarray,
    tolerance: float,
    size: int,
) -> BatchCheck:
    count = -(-len(inputs) // size) * size
    order = np.arange(count) % len(inputs)
    parts = [infer(inputs[order[start : start + size]]) for start in range(0, count, size)]
    for part in parts:
        if part.shape != (size, recorded.shape[1]):
            raise ShapeError(
                f"For {size} golden inputs the engine returns logits of shape {part.shape}; ({size}, "
                f"{recorded.shape[1]}) was recorded. It belongs to another network: build it again."
            )
    outputs, expected, certain = np.concatenate(parts), recorded[order], certain[order]
    finite = bool(np.isfinite(outputs).all())
    distance = relative_l2(expected, outputs) if finite else math.inf
    differs = outputs.argmax(axis=1) != expected.argmax(axis=1)
    wrong = int((differs & certain).sum())
    return BatchCheck(
        batch_size=size,
        relative_l2=distance if math.isfinite(distance) else None,
        labels=int(certain.sum()),
        wrong_labels=wrong,
        passed=distance <= tolerance and wrong == 0,
    )


def _summary(batches: tuple[BatchCheck, ...], tolerance: float) -> str:
    failed = [batch for batch in batches if not batch.passed]
    if not failed:
        worst = max(batch.relative_l2 or 0.0 for batch in batches)
        sizes = ", ".join(str(batch.batch_size) for batch in batches)
        return f"golden self-test passed at batch {sizes}: relative L2 at most {worst:.4f} of {tolerance:.4f} allowed"
    first = failed[0]
    if first.relative_l2 is None:
        reason = "outputs are NaN or infinite"
    elif first.relative_l2 > tolerance:
        reason = f"relative L2 is {first.relative_l2:.4f}, {tolerance:.4f} is allowed"
    else:
        reason = f"{first.wrong_labels} of {first.labels} certain labels differ"
    sizes = ", ".join(str(batch.batch_size) for batch in failed)
    return f"golden self-test failed at batch {sizes}: {reason}"
