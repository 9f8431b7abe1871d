"""A graph that tells what each candidate range of a tensor does to the outputs of the layers that read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.qdq import insert_pair, scale_from_range
from ran_deploy.converters.quantize import S8_MAX, data_name, find_weighted_nodes, quantized_weight, weight_axis

__all__ = ["ProbedReader", "probe_graph"]


class ProbedReader(NamedTuple):
    """One node that reads a tensor, and the probe's outputs about it, all scalars.

    `energy` is the sum of squares of its float output, `errors` for each candidate the sum of squared differences
    from that when the tensor and the node's weights are int8.
    """

    tensor: str
    energy: str
    errors: tuple[str, ...]


def probe_graph(model: ir.Model, candidates: Mapping[str, Sequence[float]]) -> tuple[ir.Model, list[ProbedReader]]:
    """Return a graph of `model`'s inputs whose outputs are those of the readers, and the readers in graph order.

    `candidates` has ranges (max |x|) for tensors that the base rule quantises. The graph is `model`, which never
    changes, with each reader repeated for each candidate:

        t -> Conv -> y    becomes    t -> Q -> DQ -> Conv' -> y'    with    sum((y' - y)^2)    and    sum(y^2)
    """
    probe = model.clone()
    graph = probe.graph
    nodes = [node for node in find_weighted_nodes(graph) if data_name(node) in candidates]
    rounded: dict[str, list[ir.Value]] = {}
    weights: dict[tuple[ir.Value, int], ir.Value] = {}
    readers = []
    outputs: list[ir.Value] = []
    for index, node in enumerate(nodes):
        tensor, data, key = data_name(node), node.inputs[0], (_required(node.inputs[1]), weight_axis(node))
        if tensor not in rounded:
            rounded[tensor] = [_rounded(graph, _required(data), limit) for limit in candidates[tensor]]
        if key not in weights:
            weights[key] = quantized_weight(graph, *key)
        energy = _sum_of_squares(graph, node, node.outputs[0], f"probe/{index}/energy")
        errors = [
            _error(graph, node, value, weights[key], f"probe/{index}/error{number}")
            for number, value in enumerate(rounded[tensor])
        ]
        outputs += [energy, *errors]
        readers.append(ProbedReader(tensor, energy.name or "", tuple(error.name or "" for error in errors)))
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    return probe, readers


def _required(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _rounded(graph: ir.Graph, value: ir.Value, limit: float) -> ir.Value:
    """Return `value` behind a new symmetric s8 Quantize / Dequantize pair."""
    pair = insert_pair(graph, value, scale_from_range(limit, S8_MAX), np.int8(0))
    for node in pair:
        node.name = f"{node.outputs[0].name}/{node.op_type}"  # not the tensor's, which has several pairs
    return pair.dequantize.outputs[0]


def _error(graph: ir.Graph, node: ir.Node, data: ir.Value, weight: ir.Value, name: str) -> ir.Value:
    """Return the sum of squared differences between `node` and its twin that reads `data` and `weight`."""
    inputs = [data, weight, *node.inputs[2:]]
    twin = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=f"{name}/twin")
    difference = ir.node("Sub", [twin.outputs[0], node.outputs[0]], name=f"{name}/difference")
    twin.outputs[0].name, difference.outputs[0].name = f"{name}/twin", f"{name}/difference"
    graph.insert_after(node, [twin, difference])
    return _sum_of_squares(graph, difference, difference.outputs[0], name)


def _sum_of_squares(graph: ir.Graph, after: ir.Node, value: ir.Value, name: str) -> ir.Value:
    result = ir.Value(name=name, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("ReduceSumSquare", [value], {"keepdims": 0}, outputs=[result], name=name)
    graph.insert_after(after, [node])
    return result
