"""Arithmetic that divides by a norm or a deviation: what needs more range than FP16 and more steps than int8 have."""

from __future__ import annotations

import onnx_ir as ir

from ran_deploy.converters.graph import array_of

__all__ = ["find_norm_arithmetic"]

# What makes sums of squares, roots and reciprocals.
STARTS = frozenset(
    {"Exp", "Log", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"}
)
STARTS |= {"ReduceSum", "ReduceSumSquare", "Sqrt"}
# What may stand between such a tensor and the division by it.
CONTINUES = frozenset(
    {"Abs", "Add", "Clip", "Div", "Expand", "GlobalAveragePool", "Max", "Min", "Mul", "Neg", "ReduceMax", "ReduceMean"}
)
CONTINUES |= {"Reshape", "Squeeze", "Sub", "Unsqueeze"}


def find_norm_arithmetic(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes from a square, a sum or a root up to where its result meets the data again, that one included.

    x / max(||x||, eps) and (x - mean) / sqrt(variance + eps): squares of values above 256 leave FP16, an eps of 1e-12
    is zero there, and int8 has no steps for the small among squares.
    """
    found: set[ir.Node] = set()
    for node in graph:  # in topological order
        if node.domain != "":
            continue
        if starts(node) or (node.op_type in CONTINUES and any(continues(value, found) for value in node.inputs)):
            found.add(node)
    return found


def starts(node: ir.Node) -> bool:
    """Return whether the node squares, sums, or takes roots or reciprocals, by what it is alone."""
    return node.op_type in STARTS or is_square(node)


def is_square(node: ir.Node) -> bool:
    """Return whether the node is x * x."""
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def continues(value: ir.Value | None, found: set[ir.Node]) -> bool:
    """Return whether the tensor comes from norm arithmetic that has not met other data yet."""
    producer = value.producer() if value is not None else None
    return producer in found and not (not starts(producer) and meets_data(producer, found))


def meets_data(node: ir.Node, found: set[ir.Node]) -> bool:
    """Return whether a node of norm arithmetic also reads a computed tensor from outside of it."""
    return any(value is not None and array_of(value) is None and value.producer() not in found for value in node.inputs)
