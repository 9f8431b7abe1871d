"""Move normalisation and activation in front of a concatenation, where convolutions can take them in."""

from __future__ import annotations

from typing import NamedTuple

import onnx_ir as ir

from ran_deploy.converters.graph import MODULE, add_constant, array_of, module_of, require_array, unused_name


class Joined(NamedTuple):
    """A Concat of channels and the BatchNormalization or Relu that alone reads it."""

    concat: ir.Node
    reader: ir.Node


def activate_before_concat(model: ir.Model) -> int:
    """Apply BatchNormalization and Relu to the branches of a Concat of convolutions instead of to the whole.

    Before: Relu(BatchNormalization(Concat(Conv(a), Conv(b))))
    After:  Concat(Relu(BatchNormalization(Conv(a))), Relu(BatchNormalization(Conv(b))))

    fold_batch_norm then takes the norms into the convolutions; left behind the Concat they would stay float.
    """
    moved = 0
    while found := find_joined(model.graph):
        for joined in found:
            move_to_branches(model.graph, joined)
        moved += len(found)
    return moved


def find_joined(graph: ir.Graph) -> list[Joined]:
    """Return each Concat of branches that end in a Conv, with what can move in front of it."""
    found = []
    for node in graph:
        if node.op_type != "Concat" or node.domain != "" or node.attributes.get_int("axis") != 1:
            continue
        readers = node.outputs[0].consumers()
        alone = len(readers) == 1 and not node.outputs[0].is_graph_output()
        if alone and is_movable(readers[0]) and all(ends_in_conv(value) for value in node.inputs):
            found.append(Joined(node, readers[0]))
    return found


def is_movable(node: ir.Node) -> bool:
    """Return whether the node is a Relu or a BatchNormalization with constant parameters: both act by channel."""
    if node.op_type == "BatchNormalization" and node.domain == "":
        constant = all(array_of(value) is not None for value in node.inputs[1:5])
        return constant and node.attributes.get_int("training_mode", 0) == 0
    return node.op_type == "Relu" and node.domain == ""


def ends_in_conv(value: ir.Value | None) -> bool:
    """Return whether one reader alone sees the tensor, which a Conv made, and perhaps a norm behind it."""
    if value is None or value.is_graph_output() or len(value.uses()) != 1 or channels_of(value) is None:
        return False
    producer = value.producer()
    if producer is not None and producer.op_type == "BatchNormalization":
        return ends_in_conv(producer.inputs[0])
    return producer is not None and producer.op_type == "Conv" and producer.domain == ""


def channels_of(value: ir.Value) -> int | None:
    """Return the number of channels of a tensor, None if it is unknown."""
    channels = value.shape[1] if value.shape is not None and len(value.shape) > 1 else None
    return channels if isinstance(channels, int) else None


def move_to_branches(graph: ir.Graph, joined: Joined) -> None:
    """Put a copy of the reader behind each branch, with its share of the parameters; the reader goes."""
    concat, reader = joined
    start = 0
    for i, value in enumerate(concat.inputs):
        assert value is not None
        channels = channels_of(value)
        assert channels is not None
        copy = branch_copy(graph, reader, value, slice(start, start + channels))
        graph.insert_before(concat, [copy])
        concat.replace_input_with(i, copy.outputs[0])
        start += channels
    made, result = concat.outputs[0], reader.outputs[0]
    name, made.type, made.shape = result.name, result.type, result.shape
    result.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(reader, safe=True)
    made.name = name


def branch_copy(graph: ir.Graph, node: ir.Node, value: ir.Value, channels: slice) -> ir.Node:
    """Return `node` applied to `value`, of the parameters only those of `channels`."""
    wish = f"{node.outputs[0].name}_{channels.start}"
    arrays = [require_array(parameter)[channels] for parameter in node.inputs[1:]]
    parameters = [
        add_constant(graph, f"{parameter.name}_{channels.start}", array)
        for parameter, array in zip(node.inputs[1:], arrays, strict=True)
        if parameter is not None
    ]
    output = ir.Value(name=unused_name(graph, wish), shape=value.shape, type=value.type)
    copy = ir.node(
        node.op_type, [value, *parameters], node.attributes, outputs=[output], name=f"{node.name}_{channels.start}"
    )
    copy.metadata_props[MODULE] = module_of(node)
    return copy
