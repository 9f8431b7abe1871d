"""Evaluate what depends on nothing but constants."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from ran_deploy.converters.graph import add_constant, array_of, require_array

# Results that differ from call to call, and nodes whose use is not their value.
NOT_FOLDED = frozenset({"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli"})
NOT_FOLDED |= {"Multinomial", "Dropout", "QuantizeLinear", "DequantizeLinear"}

SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def fold_constants(model: ir.Model) -> int:
    """Replace every node of the standard operators whose inputs are all constant by its value.

    Before: Mul(a, b) with a and b initializers
    After:  one initializer, a * b
    """
    folded = 0
    for node in list(model.graph):  # in topological order, so chains fold in one go
        if is_foldable(node):
            fold(model, node)
            folded += 1
    return folded


def is_foldable(node: ir.Node) -> bool:
    """Return whether the node makes one tensor, not an output of the graph, from constants alone."""
    return (
        node.domain == ""
        and node.op_type not in NOT_FOLDED
        and len(node.outputs) == 1
        and not node.outputs[0].is_graph_output()
        and all(value is None or array_of(value) is not None for value in node.inputs)
        and all(attribute.type not in SUBGRAPHS for attribute in node.attributes.values())
    )


def fold(model: ir.Model, node: ir.Node) -> None:
    """Put the value of `node` in its place."""
    output = node.outputs[0]
    constant = add_constant(model.graph, f"{output.name}_folded", evaluate(node, model.opset_imports[""]))
    output.replace_all_uses_with(constant)
    model.graph.remove(node, safe=True)


def evaluate(node: ir.Node, opset: int) -> np.ndarray:
    """Return the node's output by ONNX's reference evaluator."""
    feeds = {value.name or "": require_array(value) for value in node.inputs if value is not None}
    proto = ir.to_proto(node)
    inputs = [onnx.ValueInfoProto(name=name) for name in feeds]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output]
    graph = onnx.helper.make_graph([proto], "fold", inputs, outputs)
    fold_model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    results = list(ReferenceEvaluator(fold_model).run(None, feeds))
    return np.asarray(results[0])
