"""Fold BatchNormalization into the convolution before it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of, require_array


def fold_batch_norm(model: ir.Model) -> int:
    """Fold every BatchNormalization that is the only reader of a Conv with constant weights.

    Before: BatchNormalization(Conv(x, w, b), gamma, beta, mean, variance)
    After:  Conv(x, w * f, (b - mean) * f + beta)   with f = gamma / sqrt(variance + epsilon) per output channel

    New initializers are made, so weights shared with another Conv stay as they are. BatchNormalization behind anything
    else (the ones that open pre-activation units) stays.
    """
    pairs = find_conv_batch_norm(model.graph)
    for conv, batch_norm in pairs:
        absorb_batch_norm(model.graph, conv, batch_norm)
    return len(pairs)


def find_conv_batch_norm(graph: ir.Graph) -> list[tuple[ir.Node, ir.Node]]:
    """Return (Conv, BatchNormalization) pairs that can become one Conv."""
    pairs = []
    for node in graph:
        if (
            node.op_type != "BatchNormalization"
            or node.domain != ""
            or node.attributes.get_int("training_mode", 0) == 1
        ):
            continue
        conv = node.inputs[0].producer() if node.inputs[0] is not None else None
        if conv is None or conv.op_type != "Conv" or conv.domain != "":
            continue
        parameters = [*node.inputs[1:5], *(value for value in conv.inputs[1:] if value is not None)]
        output = conv.outputs[0]
        alone = len(output.uses()) == 1 and not output.is_graph_output()
        if alone and all(array_of(value) is not None for value in parameters):
            pairs.append((conv, node))
    return pairs


def absorb_batch_norm(graph: ir.Graph, conv: ir.Node, batch_norm: ir.Node) -> None:
    """Make `conv` compute what both computed; `batch_norm` goes."""
    weight = require_array(conv.inputs[1])
    bias = array_of(conv.inputs[2]) if len(conv.inputs) > 2 else None
    gamma, beta, mean, variance = (require_array(value) for value in batch_norm.inputs[1:5])
    epsilon = batch_norm.attributes.get_float("epsilon", 1e-5)
    folded = folded_weights(weight, bias, gamma, beta, mean, variance, epsilon)
    assert conv.inputs[1] is not None
    name = conv.inputs[1].name
    conv.resize_inputs(3)
    conv.replace_input_with(1, add_constant(graph, f"{name}_folded", folded[0]))
    conv.replace_input_with(2, add_constant(graph, f"{name}_folded_bias", folded[1]))
    made, result = conv.outputs[0], batch_norm.outputs[0]
    name, made.type, made.shape = result.name, result.type, result.shape
    result.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(batch_norm, safe=True)
    made.name = name


def folded_weights(
    weight: np.ndarray,
    bias: np.ndarray | None,
    gamma: np.ndarray,
    beta: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    epsilon: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight (O, I, kH, kW) and bias (O,) of the one convolution; computed in float64, in the weight's type."""
    factor = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    scaled = weight.astype(np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
    shifted = ((0 if bias is None else bias.astype(np.float64)) - mean) * factor + beta
    return scaled.astype(weight.dtype), shifted.astype(weight.dtype)
