"""INT8 written into the graph: which tensors, which scales, and the QuantizeLinear / DequantizeLinear pairs.

Placement (the base rule): symmetric s8 on the data input of every Conv, Gemm and MatMul by a matrix of weights, per
tensor; their weights per output channel; bias, BatchNormalization and everything else in float.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import (
    RANGE,
    add_constant,
    array_of,
    insert_after,
    require_array,
    unused_name,
)
from ran_deploy.converters.qdq import ActivationPair, insert_pair, recorded_range, scale_from_range
from ran_deploy.errors import CalibrationError, ConversionError

__all__ = [
    "find_calibrated_tensors",
    "find_dialect_tensors",
    "find_quantized_tensors",
    "insert_qdq",
    "quantize",
    "symmetric_scale",
    "weight_axis",
    "with_outputs",
]

S8_MAX = 127
KEPT_FLOAT = "ran_deploy.kept_float"  # node metadata: the node stays in float in every dialect


def find_quantized_tensors(model: ir.Model) -> list[str]:
    """Return the activation tensors the base rule quantises, in graph order, each once."""
    return list(dict.fromkeys(data_name(node) for node in find_weighted_nodes(model.graph)))


def find_calibrated_tensors(model: ir.Model) -> list[str]:
    """Return the tensors whose ranges every dialect together needs: a superset of `find_quantized_tensors`."""
    further = (value.name or "" for value in find_dialect_tensors(model.graph))
    return list(dict.fromkeys([*find_quantized_tensors(model), *further]))


def find_dialect_tensors(graph: ir.Graph) -> list[ir.Value]:
    """Return the tensors that a dialect may quantise beyond the base rule, be they quantised already or not.

    They are the outputs of Conv, behind the Relu where only that follows (it merges into the node), but for graph
    outputs and nodes kept in float.
    """
    nodes = [
        node for node in graph if node.op_type == "Conv" and node.domain == "" and KEPT_FLOAT not in node.metadata_props
    ]
    tensors = [behind_relu(node.outputs[0]) for node in nodes]
    return [tensor for tensor in tensors if not tensor.is_graph_output()]


def behind_relu(tensor: ir.Value) -> ir.Value:
    """Return the output of the Relu, or Clip to [0, ...] as ReLU6 has it, that alone reads `tensor`, else `tensor`."""
    readers = tensor.consumers()
    if len(readers) == 1 and is_relu(readers[0]) and not tensor.is_graph_output():
        return readers[0].outputs[0]
    return tensor


def is_relu(node: ir.Node) -> bool:
    """Return whether the node cuts off what is negative, and at most something large."""
    if node.op_type == "Clip" and len(node.inputs) > 1:
        lowest = array_of(node.inputs[1])
        return lowest is not None and float(lowest) == 0
    return node.op_type == "Relu"


def with_outputs(model: ir.Model, names: Collection[str]) -> ir.Model:
    """Return a copy of `model` with these tensors as further graph outputs.

    Raises: ConversionError if one does not exist.
    """
    twin = model.clone()
    values = {value.name: value for value in activations(twin.graph)}
    missing = [name for name in names if name not in values]
    if missing:
        raise ConversionError(
            f"The graph has no tensor {missing[0]!r}. The names are of another export: list them again."
        )
    present = {output.name for output in twin.graph.outputs}
    twin.graph.outputs.extend(values[name] for name in dict.fromkeys(names) if name not in present)
    return twin


def insert_qdq(model: ir.Model, ranges: Mapping[str, float], *, keep_float: Collection[str] = ()) -> int:
    """Quantise Conv, Gemm and MatMul by the base rule, in place; return how many of them now compute in int8.

    `ranges` has max |x| for every tensor of `find_quantized_tensors`; all it has are recorded on the tensors, so that
    dialects can be lowered from the graph alone. `keep_float` are names of nodes that no dialect may quantise.
    Raises: CalibrationError for a missing, negative, infinite or NaN range and for such weights; ConversionError for
    an unknown name in `keep_float`.
    """
    graph = model.graph
    unknown = set(keep_float) - {node.name for node in graph}
    if unknown:
        raise ConversionError(f"The graph has no node {min(unknown)!r} to keep in float. List the node names again.")
    for node in graph:
        if node.name in keep_float:
            node.metadata_props[KEPT_FLOAT] = "asked for"
    nodes = [node for node in find_weighted_nodes(graph) if node.name not in keep_float]
    record_ranges(graph, ranges, {data_name(node) for node in nodes})
    pairs: dict[ir.Value, ActivationPair] = {}
    weights: dict[tuple[ir.Value, int], ir.Value] = {}
    for node in nodes:
        data, weight = node.inputs[0], node.inputs[1]
        assert data is not None
        assert weight is not None
        key = (weight, weight_axis(node))
        if data not in pairs:
            pairs[data] = insert_pair(graph, data, scale_from_range(recorded_range(data), S8_MAX), np.int8(0))
        if key not in weights:
            weights[key] = quantized_weight(graph, *key)
        node.replace_input_with(0, pairs[data].dequantize.outputs[0])
        node.replace_input_with(1, weights[key])
    remove_unread(graph, {weight for weight, _ in weights})
    return len(nodes)


def find_weighted_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Return the Conv, Gemm and MatMul nodes in float32 with constant weights, for MatMul a matrix."""
    return [
        node
        for node in graph
        if node.op_type in ("Conv", "Gemm", "MatMul")
        and node.domain == ""
        and node.attributes.get_int("transA", 0) == 0
        and (weight := array_of(node.inputs[1])) is not None
        and weight.dtype == np.float32
        and (node.op_type == "Conv" or weight.ndim == 2)
        and array_of(node.inputs[0]) is None
    ]


def weight_axis(node: ir.Node) -> int:
    """Return the axis of a Conv's, Gemm's or MatMul's weight that counts output channels."""
    return 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1 else 1


def data_name(node: ir.Node) -> str:
    """Return the name of the tensor a node works on."""
    assert node.inputs[0] is not None
    return node.inputs[0].name or ""


def activations(graph: ir.Graph) -> list[ir.Value]:
    """Return graph inputs and node outputs."""
    return [*graph.inputs, *(output for node in graph for output in node.outputs)]


def record_ranges(graph: ir.Graph, ranges: Mapping[str, float], needed: Collection[str]) -> None:
    """Write each range on its tensor. Raises: CalibrationError if one is missing or impossible."""
    missing = sorted(set(needed) - set(ranges))
    if missing:
        raise CalibrationError(
            f"No range for {len(missing)} tensors, {missing[0]!r} among them. Calibrate this very graph again."
        )
    values = {value.name: value for value in activations(graph)}
    for name, limit in ranges.items():
        if not np.isfinite(limit) or limit < 0:
            raise CalibrationError(
                f"Tensor {name!r} has range {limit}; expected a finite max |x|. Check the calibration images."
            )
        if name in values:
            values[name].metadata_props[RANGE] = repr(float(limit))


def quantized_weight(graph: ir.Graph, weight: ir.Value, axis: int) -> ir.Value:
    """Add int8 weights with a DequantizeLinear and return its output. Raises: CalibrationError if one is not finite."""
    array = require_array(weight)
    if not np.isfinite(array).all():
        raise CalibrationError(
            f"Weight {weight.name!r} holds NaN or infinity. The checkpoint is damaged: train it again."
        )
    scale = symmetric_scale(array, axis)
    stored = add_constant(graph, f"{weight.name}_quantized", quantize(array, scale, axis))
    scale_value = add_constant(graph, f"{weight.name}_scale", scale)
    point = add_constant(graph, f"{weight.name}_zero_point", np.zeros(scale.shape, np.int8))
    restored = ir.Value(name=unused_name(graph, f"{weight.name}_dequantized"), shape=weight.shape, type=weight.type)
    node = ir.node("DequantizeLinear", [stored, scale_value, point], {"axis": axis}, outputs=[restored])
    node.name = f"{restored.name}/DequantizeLinear"  # not the weight's, which may be used transposed as well
    insert_after(stored, graph, [node])
    return restored


def remove_unread(graph: ir.Graph, values: Collection[ir.Value]) -> None:
    """Remove the initializers among `values` that nothing reads any more."""
    for value in values:
        if not value.uses() and not value.is_graph_output() and value.name is not None:
            del graph.initializers[value.name]


def symmetric_scale(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return one int8 scale per index of `axis`: `scale_from_range` of max |w| with 127 levels, float32.

    A slice of zeros takes the largest scale of the others: with 1, an int32 bias in steps of activation times weight
    scale would be coarse.
    Shapes: weight (O, I, kH, kW) with axis 0 -> scale (O,).
    Source: Wu et al. 2020, arXiv:2004.09602, section 3.1, scale quantization (its s is our 1 / scale).
    """
    limits = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    limits[limits == 0] = limits.max()
    return np.array([scale_from_range(float(limit), S8_MAX) for limit in limits], np.float32)


def quantize(x: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    """Return x / scale as int8, halves rounded to even and saturated, like QuantizeLinear with zero point 0."""
    scale = scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.clip(np.rint(x / scale), -128, 127).astype(np.int8)
