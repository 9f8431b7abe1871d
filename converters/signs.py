"""Which tensors provably hold no negative value."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ran_deploy.converters.graph import array_of

__all__ = ["find_non_negative"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
Known = Callable[[ir.Value | None], bool]


def find_non_negative(graph: ir.Graph) -> set[ir.Value]:
    """Return the tensors that cannot hold a negative value, whatever the image.

    NaN aside: it cannot come out of finite weights and images. A tensor not in the set may still never be negative.
    """
    found: set[ir.Value] = {value for value in graph.inputs if is_unsigned(value)}

    def known(value: ir.Value | None) -> bool:
        array = array_of(value)
        return value in found if array is None else bool((array >= 0).all())

    for node in graph:
        if node.domain == "" and (rule := RULES.get(node.op_type)) is not None and rule(node, known):
            found.add(node.outputs[0])
    return found


def is_unsigned(value: ir.Value) -> bool:
    """Return whether the tensor's type has no negative numbers."""
    return value.dtype in (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64)


def always(_: ir.Node, __: Known) -> bool:
    """The operator itself sees to it."""
    return True


def if_first_input(node: ir.Node, known: Known) -> bool:
    """Selections and averages of the first input."""
    return known(node.inputs[0])


def if_all_inputs(node: ir.Node, known: Known) -> bool:
    """Sums, products and quotients."""
    return all(known(value) for value in node.inputs)


def if_any_input(node: ir.Node, known: Known) -> bool:
    """The largest of several."""
    return any(known(value) for value in node.inputs)


def if_clipped(node: ir.Node, known: Known) -> bool:
    """No bound is negative, and either there is a lower one or nothing negative to cut off."""
    bounds = [value for value in node.inputs[1:] if value is not None]
    has_lower = len(node.inputs) > 1 and node.inputs[1] is not None
    return all(known(value) for value in bounds) and (has_lower or known(node.inputs[0]))


def if_zero_is_zero(node: ir.Node, known: Known) -> bool:
    """Q/DQ of the first input, unless its zero point moves numbers to the other side of 0."""
    point = node.inputs[2] if len(node.inputs) > 2 else None
    array = array_of(point)
    return known(node.inputs[0]) and (point is None or (array is not None and not array.any()))


def if_float(node: ir.Node, known: Known) -> bool:
    """Casts of the first input to float; signed integers may wrap round."""
    return node.attributes.get_int("to") in FLOATS and known(node.inputs[0])


def if_not_cubic(node: ir.Node, known: Known) -> bool:
    """Nearest and linear interpolation average; cubic has negative weights."""
    return node.attributes.get_string("mode", "nearest") != "cubic" and known(node.inputs[0])


RULES: dict[str, Callable[[ir.Node, Known], bool]] = {
    "Relu": always,
    "Sigmoid": always,
    "HardSigmoid": always,
    "Softmax": always,
    "Softplus": always,
    "Abs": always,
    "Exp": always,
    "Sqrt": always,
    "ReduceL1": always,
    "ReduceL2": always,
    "ReduceSumSquare": always,
    "Clip": if_clipped,
    "Add": if_all_inputs,
    "Mul": if_all_inputs,
    "Div": if_all_inputs,
    "Concat": if_all_inputs,
    "Min": if_all_inputs,
    "Max": if_any_input,
    "MaxPool": if_first_input,
    "GlobalMaxPool": if_first_input,
    "AveragePool": if_first_input,
    "GlobalAveragePool": if_first_input,
    "ReduceMean": if_first_input,
    "Squeeze": if_first_input,
    "Unsqueeze": if_first_input,
    "Flatten": if_first_input,
    "Reshape": if_first_input,
    "Transpose": if_first_input,
    "Cast": if_float,
    "QuantizeLinear": if_zero_is_zero,
    "DequantizeLinear": if_zero_is_zero,
    "Resize": if_not_cubic,
}
