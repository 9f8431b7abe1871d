"""The ONNX Runtime dialect: u8 activations, s8 weights, int32 bias, and Q/DQ on both sides of every convolution."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of, check, require_array, unused_name
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.qdq import (
    find_activation_pairs,
    insert_pair,
    recorded_range,
    requantize,
    scale_from_range,
)
from ran_deploy.converters.quantize import KEPT_FLOAT, find_dialect_tensors
from ran_deploy.converters.saturation import fit_weights
from ran_deploy.converters.signs import find_non_negative
from ran_deploy.precision import Precision

__all__ = ["bias_steps", "onnxruntime_graph", "unsigned_grid"]

INT32_MAX = 2**31 - 1


def onnxruntime_graph(model: ir.Model, precision: Precision) -> ir.Model:
    """Return the float32 graph for fp32 and fp16 (FP16 is slower in its CPU kernels), the u8 graph for int8.

    ONNX Runtime 1.32 fuses Q/DQ into int8 kernels only where they stand on both sides of a node, and its s8 kernels
    are slower than float32. So besides the base rule's tensors it gets Q/DQ on the outputs of all convolutions, behind
    the Relu where one follows. Sums stay float: rounded to int8 they add half as much error again, or more
    (docs/int8.md). MaxPool only picks, so behind int8 it keeps the scale; what a Concat joins has the scale of the
    whole. Biases become int32, and weights are fitted to CPUs without VNNI: see `saturation`.
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
    for tensor in find_dialect_tensors(graph):
        if not is_quantized(tensor):
            whole = joined(tensor)
            quantize_readers(graph, tensor, *unsigned_grid(recorded_range(whole), whole in non_negative))
    for node in list(graph):
        if is_int8_pool(node):  # asked here, as the answer changes when the pool before gets its pair
            scale, zero_point = (require_array(value) for value in dequantizer(node.inputs[0]).inputs[1:3])
            quantize_readers(graph, node.outputs[0], np.float32(scale), np.uint8(zero_point))
    fit_weights(graph)  # before the biases, whose steps follow the weights' scales
    for node in find_biased(graph):
        store_bias_as_int32(graph, node)
    remove_unused(model)
    check(model)
    return model


def unsigned_grid(limit: float, non_negative: bool) -> tuple[np.float32, np.uint8]:
    """Return scale and zero point of uint8 for |x| <= limit: 255 steps from 0, or the s8 grid shifted by 128."""
    if non_negative:
        return scale_from_range(limit, 255), np.uint8(0)
    return scale_from_range(limit, 127), np.uint8(128)


def bias_steps(bias: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """Return bias / scale as int32, halves rounded to even; None if a step count leaves int32 or a scale is zero.

    Shapes: both (O,); scale is the activation's times the weights'.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return steps.astype(np.int32) if bool((np.abs(steps) <= INT32_MAX).all()) else None


def is_quantized(tensor: ir.Value) -> bool:
    """Return whether a QuantizeLinear reads the tensor."""
    return any(reader.op_type == "QuantizeLinear" for reader in tensor.consumers())


def joined(tensor: ir.Value) -> ir.Value:
    """Return the output of the Concat that alone reads `tensor`, if that is quantised, else `tensor`."""
    readers = tensor.consumers()
    concat = len(readers) == 1 and readers[0].op_type == "Concat" and is_quantized(readers[0].outputs[0])
    return readers[0].outputs[0] if concat else tensor


def is_dequantized(value: ir.Value | None) -> bool:
    """Return whether the tensor comes from a DequantizeLinear."""
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def dequantizer(value: ir.Value | None) -> ir.Node:
    """Return the DequantizeLinear a tensor is known to come from."""
    assert value is not None
    producer = value.producer()
    assert producer is not None
    return producer


def quantize_readers(graph: ir.Graph, tensor: ir.Value, scale: np.float32, zero_point: np.uint8) -> None:
    """Let everything that reads `tensor` read it through a new Quantize / Dequantize pair."""
    uses = tensor.uses()
    pair = insert_pair(graph, tensor, scale, zero_point)
    for use in uses:
        use.node.replace_input_with(use.idx, pair.dequantize.outputs[0])


def is_int8_pool(node: ir.Node) -> bool:
    """Return whether a MaxPool reads a dequantised tensor, and its output is not quantised yet."""
    return (
        node.op_type == "MaxPool"
        and node.domain == ""
        and KEPT_FLOAT not in node.metadata_props
        and is_dequantized(node.inputs[0])
        and not node.outputs[0].is_graph_output()
        and not is_quantized(node.outputs[0])
    )


def find_biased(graph: ir.Graph) -> list[ir.Node]:
    """Return the Conv and Gemm nodes in int8 that add a constant float32 bias, one number an output, unscaled."""
    return [
        node
        for node in graph
        if node.op_type in ("Conv", "Gemm")
        and len(node.inputs) > 2
        and (bias := array_of(node.inputs[2])) is not None
        and is_dequantized(node.inputs[0])
        and is_dequantized(node.inputs[1])
        and bias.shape == require_array(dequantizer(node.inputs[1]).inputs[1]).shape
        and node.attributes.get_float("alpha", 1.0) == node.attributes.get_float("beta", 1.0) == 1.0
    ]


def store_bias_as_int32(graph: ir.Graph, node: ir.Node) -> None:
    """Store a bias as int32 with a DequantizeLinear; it stays float32 where int32 cannot hold it."""
    data, weight, bias = node.inputs[:3]
    assert bias is not None
    scales = [require_array(dequantizer(value).inputs[1]).astype(np.float64) for value in (data, weight)]
    scale = (scales[0] * scales[1]).astype(np.float32)
    steps = bias_steps(require_array(bias), scale)
    if steps is None:
        return
    stored = add_constant(graph, f"{bias.name}_quantized", steps)
    scale_value = add_constant(graph, f"{bias.name}_scale", scale)
    point = add_constant(graph, f"{bias.name}_zero_point", np.zeros(scale.shape, np.int32))
    restored = ir.Value(name=unused_name(graph, f"{bias.name}_dequantized"), shape=bias.shape, type=bias.type)
    dequantize = ir.node("DequantizeLinear", [stored, scale_value, point], {"axis": 0}, outputs=[restored])
    dequantize.name = f"{restored.name}/DequantizeLinear"  # not the bias's: several nodes may share one
    graph.insert_before(node, [dequantize])
    node.replace_input_with(2, restored)
