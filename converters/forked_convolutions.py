"""A bias for int8 convolutions whose output several nodes read, where OpenVINO would scale it twice.

OpenVINO 2026.4.1 moves the scale of an int8 convolution behind what reads its output. Where the batch is dynamic, the
convolution has no bias and a mean, maximum, pool or convolution is one of several readers, that reader gets an output
that is multiplied by the scales of input and weights once more: c - mean(c) then subtracts next to nothing. A static
batch, a single reader, a Relu before the fork, or a bias other than zero: all of these come out right.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of

__all__ = ["bias_forked_convolutions"]

UNSEEN = np.float32(1e-30)  # a normal number in float32 and BF16 that no sum of products notices; zero is removed


def bias_forked_convolutions(graph: ir.Graph) -> int:
    """Give a bias that changes no output to each int8 convolution that OpenVINO would get wrong; return how many."""
    found = find_forked_convolutions(graph)
    for node in found:
        weight = node.inputs[1]
        assert weight is not None
        assert weight.shape is not None
        channels = weight.shape[0]
        assert isinstance(channels, int)  # of a constant
        bias = add_constant(graph, f"{node.name}_bias", np.full(channels, UNSEEN))
        node.resize_inputs(3)
        node.replace_input_with(2, bias)
    return len(found)


def find_forked_convolutions(graph: ir.Graph) -> list[ir.Node]:
    """Return the convolutions of dequantised inputs without a bias, or with one of zeros, of several readers."""
    return [
        node
        for node in graph
        if node.op_type == "Conv"
        and node.domain == ""
        and is_dequantized(node.inputs[0])
        and not has_bias(node)
        and len(node.outputs[0].uses()) > 1
    ]


def is_dequantized(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "DequantizeLinear"


def has_bias(node: ir.Node) -> bool:
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    bias = array_of(node.inputs[2])
    return bias is None or bool(bias.any())
