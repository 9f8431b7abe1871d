"""The layers of a network as people know them, found again in a dialect's graph with the ranges of their inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.branches import find_branches
from ran_deploy.converters.graph import array_of, module_of
from ran_deploy.converters.quantize import data_name, find_weighted_nodes

__all__ = ["Layer", "QuantizedInput", "find_layers"]

STAGE = re.compile(r"stages\.(\d+)(?:\.|$)")  # where our own networks have their stages


@dataclass(frozen=True, kw_only=True)
class QuantizedInput:
    """The tensor a layer reads, by its name in the FP32 graph, and what its int8 numbers can represent.

    Numbers from `low` to `high` are rounded to a multiple of `scale`, others are cut off.
    """

    tensor: str
    low: float
    high: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A Conv, Gemm or MatMul with weights: `output` is the name its output has in both graphs.

    `name` is the path of its module, or the node's name where that is unknown; `stage` the stage of the network, or
    the first part of the path; `in_mask` whether it serves a soft mask alone. `input` is None where its input is not
    quantised.
    """

    name: str
    stage: str
    operator: str
    in_mask: bool
    output: str
    input: QuantizedInput | None


def find_layers(reference: ir.Graph, dialect: ir.Graph) -> tuple[Layer, ...]:
    """Return the layers of the FP32 graph whose output a dialect's graph has too, in graph order.

    Lowering keeps the names of the tensors that nodes of the network make, whatever it puts between them.
    """
    lowered = {output.name: output for node in dialect for output in node.outputs}
    masks = {node for branches in find_branches(reference) for node in branches.mask}
    layers = []
    for node in find_weighted_nodes(reference):
        name, output = module_of(node), node.outputs[0].name
        if output is None or output not in lowered:
            continue
        layers.append(
            Layer(
                name=name or node.name or output,
                stage=stage_of(name),
                operator=node.op_type,
                in_mask=node in masks,
                output=output,
                input=find_quantized_input(lowered[output], data_name(node)),
            )
        )
    return tuple(layers)


def stage_of(path: str) -> str:
    """Return 'stage1' for 'stages.0.2.trunk', and the first part of any other path."""
    staged = STAGE.match(path)
    return f"stage{int(staged[1]) + 1}" if staged else path.partition(".")[0]


def find_quantized_input(output: ir.Value, tensor: str) -> QuantizedInput | None:
    """Return how the layer that makes `output` holds its input, which is `tensor` in the FP32 graph.

    None where that is no Q/DQ pair with one scale. Casts to and from FP16 may stand around both.
    """
    layer = before_casts(output).producer()
    restored = producer_of(layer, "DequantizeLinear")
    quantizer = producer_of(restored, "QuantizeLinear")
    represented = representable(quantizer) if quantizer is not None else None
    if represented is None:
        return None
    low, high, scale = represented
    return QuantizedInput(tensor=tensor, low=low, high=high, scale=scale)


def before_casts(value: ir.Value) -> ir.Value:
    """Return what `value` was cast from, else `value` itself."""
    node = value.producer()
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def producer_of(node: ir.Node | None, operator: str) -> ir.Node | None:
    """Return the node of this operator that makes the first input of `node`."""
    value = node.inputs[0] if node is not None and node.inputs else None
    found = value.producer() if value is not None else None
    return found if found is not None and found.op_type == operator else None


def representable(quantizer: ir.Node) -> tuple[float, float, float] | None:
    """Return the least and the largest number a QuantizeLinear per tensor represents, and its scale."""
    scale, point = array_of(quantizer.inputs[1]), array_of(quantizer.inputs[2])
    if scale is None or point is None or scale.size != 1 or point.dtype not in (np.int8, np.uint8):
        return None
    limits, step, zero = np.iinfo(point.dtype), float(scale.reshape(())), int(point.reshape(()))
    return (int(limits.min) - zero) * step, (int(limits.max) - zero) * step, step
