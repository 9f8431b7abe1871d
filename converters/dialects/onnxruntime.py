"""The ONNX Runtime dialect: u8 activations, s8 weights, int32 bias, and Q/DQ around everything it can run in int8."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of, check, insert_after, require_array, unused_name
from ran_deploy.converters.qdq import (
    ActivationPair,
    find_activation_pairs,
    insert_pair,
    recorded_range,
    requantize,
    scale_from_range,
)
from ran_deploy.converters.signs import find_non_negative
from ran_deploy.precision import Precision

__all__ = ["bias_as_int32", "onnxruntime_graph", "unsigned_grid"]

ARITHMETIC = ("Conv", "Add", "Mul")
SELECTIONS = ("MaxPool", "Resize")  # run on the integers themselves, so output and input share one scale
INT32_MAX = 2**31 - 1


def onnxruntime_graph(model: ir.Model, precision: Precision, arithmetic=ARITHMETIC, selections=SELECTIONS) -> ir.Model:
    """Return the float32 graph for fp32 and fp16 (its CPU kernels are slower in FP16), the u8 graph for int8.
    """
    model = model.clone()
    if precision is not Precision.INT8:
        return model
    graph = model.graph
    non_negative = find_non_negative(graph)
    for pair in find_activation_pairs(graph):
        tensor = pair.quantize.inputs[0]
        assert tensor is not None
        requantize(graph, pair, *unsigned_grid(recorded_range(tensor), tensor in non_negative))
    for node in list(graph):
        if node.op_type in arithmetic and node.domain == "" and wants_output_pair(node):
            tensor = node.outputs[0]
            quantize_readers(graph, tensor, *unsigned_grid(recorded_range(tensor), tensor in non_negative))
        elif node.op_type in selections and wants_output_pair(node):
            quantize_selection(graph, node)
    for node in list(graph):
        if node.op_type in ("Conv", "Gemm"):
            bias_as_int32(graph, node)
    check(model)
    return model


def unsigned_grid(limit: float, non_negative: bool) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of uint8 for |x| <= limit: 255 steps from 0, or the s8 grid shifted by 128."""
    if non_negative:
        return scale_from_range(limit, 255), np.uint8(0)
    return scale_from_range(limit, 127), np.uint8(128)


def wants_output_pair(node: ir.Node) -> bool:
    """Return whether nothing quantises the output yet, directly or behind a Relu that merges into the node."""
    readers = node.outputs[0].consumers()
    if node.outputs[0].is_graph_output() or any(r.op_type == "QuantizeLinear" for r in readers):
        return False
    if node.op_type == "Conv" and not is_dequantized(node.inputs[1]):
        return False
    if node.op_type == "Add" and any(array_of(v) is not None for v in node.inputs):
        return False
    return [reader.op_type for reader in readers] != ["Relu"]


def is_dequantized(value) -> bool:
    p = None if value is None else value.producer()
    return p is not None and p.op_type == "DequantizeLinear"


def quantize_readers(graph, tensor, scale, zero_point):
    uses = tensor.uses()
    pair = insert_pair(graph, tensor, scale, zero_point)
    for node, index in uses:
        node.replace_input_with(index, pair.dequantize.outputs[0])


def quantize_selection(graph, node):
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type != "DequantizeLinear":
        return
    quantize_readers(graph, node.outputs[0], require_array(source.inputs[1])[()], require_array(source.inputs[2])[()])


def bias_as_int32(graph, node):
    data, weight, bias = (list(node.inputs) + [None])[:3]
    if array_of(bias) is None or not is_dequantized(data) or not is_dequantized(weight):
        return
    scale = require_array(data.producer().inputs[1]).astype(np.float64) * require_array(weight.producer().inputs[1])
    scale = scale.astype(np.float32)
    steps = np.rint(require_array(bias) / scale.astype(np.float64))
    if np.abs(steps).max() > INT32_MAX:
        return
    stored = add_constant(graph, f"{bias.name}_quantized", steps.astype(np.int32))
    scale_value = add_constant(graph, f"{bias.name}_scale", scale)
    point = add_constant(graph, f"{bias.name}_zero_point", np.zeros(scale.shape, np.int32))
    restored = ir.Value(name=unused_name(graph, f"{bias.name}_dequantized"), shape=bias.shape, type=bias.type)
    dq = ir.node("DequantizeLinear", [stored, scale_value, point], {"axis": 0}, outputs=[restored])
    graph.insert_before(node, [dq])
    node.replace_input_with(2, restored)
