"""Remove nodes that hand on their input unchanged."""

from __future__ import annotations

import onnx_ir as ir


def remove_identity(model: ir.Model) -> int:
    """Remove Identity, Dropout at inference, and Cast to the type its input has; names of graph outputs stay.

    Before: y = Identity(x); z = Relu(y)
    After:  z = Relu(x)

    One stays where a graph input, a constant or another graph output would have to become a graph output.
    """
    removed = 0
    for node in list(model.graph):
        if hands_on_input(node) and can_bypass(node):  # asked here, as its input changes when the one before goes
            bypass(model.graph, node)
            removed += 1
    return removed


def hands_on_input(node: ir.Node) -> bool:
    """Return whether the first output always equals the first input."""
    if node.domain != "":
        return False
    if node.op_type == "Dropout":  # without training_mode it only passes on; nobody may read its mask
        no_mask = all(not output.uses() and not output.is_graph_output() for output in node.outputs[1:])
        return no_mask and (len(node.inputs) < 3 or node.inputs[2] is None)
    if node.op_type == "Cast":
        source = node.inputs[0].dtype if node.inputs[0] is not None else None
        return source is not None and source == node.attributes.get_int("to")
    return node.op_type == "Identity"


def can_bypass(node: ir.Node) -> bool:
    """Return whether readers of the output may read the input instead."""
    data = node.inputs[0]
    if data is None:
        return False
    return not node.outputs[0].is_graph_output() or (data.producer() is not None and not data.is_graph_output())


def bypass(graph: ir.Graph, node: ir.Node) -> None:
    """Connect the readers of `node` with its input; a graph output keeps its name."""
    data, output = node.inputs[0], node.outputs[0]
    assert data is not None
    name = output.name if output.is_graph_output() else data.name
    output.replace_all_uses_with(data, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    data.name = name
