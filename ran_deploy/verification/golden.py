"""The golden self-test: does an engine, on this very device, reproduce the outputs recorded for its graph?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import ShapeError
from ran_deploy.manifest import Task
from ran_deploy.verification.golden_rows import ROW_RULES, RowRule, allowed_errors
from ran_deploy.verification.metrics import relative_l2, row_cosines

__all__ = ["BatchCheck", "SelfTestResult", "golden_batch_sizes", "self_test", "tolerance_of"]

TOLERANCE = 0.03  # engines of one INT8 graph differ by up to 0.022 (OpenVINO against ONNX Runtime)
SPREADS = 3


@dataclass(frozen=True, kw_only=True)
class BatchCheck:
    """The golden inputs run at one batch size.

    `rows` counts those whose label, or direction of an embedding, has to be the recorded one, `wrong_rows` those of
    them where it is not. `relative_l2` and `lowest_cosine`, that of the row which turned most, are None where an output
    is not finite.
    """

    batch_size: int
    relative_l2: float | None
    lowest_cosine: float | None
    rows: int
    wrong_rows: int
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
    task: Task = Task.CLASSIFICATION,
    least_calls: int = 1,
    also: Iterable[int] = (),
) -> SelfTestResult:
    """Compare `infer` of the golden `inputs`, uint8 (N, H, W, 3), with the `recorded` outputs, float32 (N, size).

    At each batch size of `golden_batch_sizes` and of `also` two things must hold, with t = max(0.03, 3 * spread), where
    `spread` is the relative L2 distance that two evaluations of the graph had at export:
    - relative L2 over all outputs is at most t;
    - each row does what `task` is about. t allows a row an error of a = t * max(row norm, root mean square of all row
      norms). The label of logits is the recorded one wherever the recorded margin, first logit minus second, exceeds
      sqrt(2) * a; an embedding turns by no more than an error of 3 * a can turn it. Where the margin is smaller, or the
      vector shorter than that error, a difference is no proof of a fault.
    Every batch is full: inputs are repeated, in order, to fill the last one and those larger than N. Each size runs
    `least_calls` times at least, for engines that do otherwise with what comes again.
    Raises: ShapeError if there are no golden inputs, or not as many as recorded outputs.
    """
    if not len(inputs) or len(inputs) != len(recorded):
        raise ShapeError(f"There are {len(inputs)} golden inputs for {len(recorded)} recorded outputs. Export again.")
    tolerance = tolerance_of(spread)
    rule = ROW_RULES[task]
    batches = tuple(
        _check_batch(infer, inputs, recorded, rule, tolerance, size, least_calls)
        for size in sorted({*golden_batch_sizes(max_batch), *also})
    )
    return SelfTestResult(
        passed=all(batch.passed for batch in batches),
        tolerance=tolerance,
        batches=batches,
        summary=_summary(batches, tolerance, rule),
    )


def tolerance_of(spread: float) -> float:
    """Return the relative L2 distance from the recorded outputs that an engine may have."""
    return max(TOLERANCE, SPREADS * spread)


def golden_batch_sizes(max_batch: int) -> tuple[int, ...]:
    """Return 1, the largest, and one between them that fills the largest only in part, as far as they differ."""
    return tuple(sorted({1, max_batch // 2 + 1, max_batch}))


def _check_batch(
    infer: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    recorded: np.ndarray,
    rule: RowRule,
    tolerance: float,
    size: int,
    least_calls: int,
) -> BatchCheck:
    count = max(-(-len(inputs) // size), least_calls) * size
    order = np.arange(count) % len(inputs)
    parts = [infer(inputs[order[start : start + size]]) for start in range(0, count, size)]
    for part in parts:
        if part.shape != (size, recorded.shape[1]):
            raise ShapeError(
                f"For {size} golden inputs the engine returns outputs of shape {part.shape}; ({size}, "
                f"{recorded.shape[1]}) was recorded. It belongs to another network: build it again."
            )
    outputs, expected = np.concatenate(parts), recorded[order]
    allowed = allowed_errors(recorded, tolerance)
    certain = rule.certain(recorded, allowed)[order]
    finite = bool(np.isfinite(outputs).all())
    distance = relative_l2(expected, outputs) if finite else math.inf
    wrong = int((certain & ~rule.kept(expected, outputs, allowed[order])).sum())
    return BatchCheck(
        batch_size=size,
        relative_l2=distance if math.isfinite(distance) else None,
        lowest_cosine=float(row_cosines(expected, outputs).min()) if finite else None,
        rows=int(certain.sum()),
        wrong_rows=wrong,
        passed=distance <= tolerance and wrong == 0,
    )


def _summary(batches: tuple[BatchCheck, ...], tolerance: float, rule: RowRule) -> str:
    failed = [batch for batch in batches if not batch.passed]
    if not failed:
        worst = max(batch.relative_l2 or 0.0 for batch in batches)
        sizes = ", ".join(str(batch.batch_size) for batch in batches)
        cosine = min(1.0 if batch.lowest_cosine is None else batch.lowest_cosine for batch in batches)
        told = f", cosine at least {cosine:.5f}" if rule.by_cosine else ""
        distance = f"relative L2 at most {worst:.4f} of {tolerance:.4f} allowed"
        return f"golden self-test passed at batch {sizes}: {distance}{told}"
    first = failed[0]
    if first.relative_l2 is None:
        reason = "outputs are NaN or infinite"
    elif first.relative_l2 > tolerance:
        reason = f"relative L2 is {first.relative_l2:.4f}, {tolerance:.4f} is allowed"
    else:
        reason = f"{first.wrong_rows} of {first.rows} {rule.fault}"
    sizes = ", ".join(str(batch.batch_size) for batch in failed)
    return f"golden self-test failed at batch {sizes}: {reason}"
