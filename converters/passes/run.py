"""Run graph passes on a copy of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ran_deploy.converters.graph import check
from ran_deploy.converters.passes import PASSES

__all__ = ["Pass", "run_passes"]

Pass = Callable[[ir.Model], int]


def run_passes(model: ir.Model, passes: Sequence[Pass] = PASSES) -> tuple[ir.Model, Counter[str]]:
    """Return a copy of `model` with `passes` applied in order, and the number of rewrites of each.

    The copy shares the arrays of its initializers, which no pass edits. Raises: ConversionError if the result is
    not valid ONNX.
    """
    model, rewrites = model.clone(), Counter[str]()
    common_passes.ShapeInferencePass()(model)  # passes read shapes; onnxsim leaves half of them out
    for apply_pass in passes:
        rewrites[apply_pass.__name__] += apply_pass(model)
    check(model)
    return model, rewrites
