"""Let arithmetic broadcast by itself."""

from __future__ import annotations

import onnx_ir as ir

BROADCASTING = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub"})


def remove_expand(model: ir.Model) -> int:
    """Remove every Expand of which all readers would broadcast to the same shape without it.

    Before: Div(x, Expand(norm, Concat(Shape(x), ...)))
    After:  Div(x, norm)                                 Shape and Concat are left for remove_unused

    The exporter writes x / ||x|| so; the sizes hold the dynamic batch.
    """
    removed = 0
    for node in list(model.graph):
        if is_needless_expand(node):  # asked here, as of two that make a shape together one has to stay
            data, output = node.inputs[0], node.outputs[0]
            assert data is not None
            output.replace_all_uses_with(data)
            model.graph.remove(node, safe=True)
            removed += 1
    return removed


def is_needless_expand(node: ir.Node) -> bool:
    """Return whether the node is an Expand that can go."""
    return (
        node.op_type == "Expand"
        and node.domain == ""
        and node.inputs[0] is not None
        and not node.outputs[0].is_graph_output()
        and all(broadcasts(reader, node) for reader in node.outputs[0].consumers())
    )


def broadcasts(reader: ir.Node, expand: ir.Node) -> bool:
    """Return whether another input of `reader` has the shape of its output, which the unexpanded tensor fits."""
    data, expanded = expand.inputs[0], expand.outputs[0]
    others = [value for value in reader.inputs if value is not None and value is not expanded]
    return (
        reader.op_type in BROADCASTING
        and reader.domain == ""
        and any(same_shape(value, reader.outputs[0]) and fits(data, value) for value in others)
    )


def same_shape(value: ir.Value, other: ir.Value) -> bool:
    """Return whether both shapes are known and equal, symbols included."""
    return is_known(value.shape) and value.shape == other.shape


def fits(data: ir.Value | None, target: ir.Value) -> bool:
    """Return whether `data` broadcasts to exactly the shape of `target`."""
    if data is None or data.shape is None or target.shape is None or len(data.shape) > len(target.shape):
        return False
    wanted = list(target.shape)[len(target.shape) - len(data.shape) :]
    return is_known(data.shape) and all(found in (1, size) for found, size in zip(data.shape, wanted, strict=True))


def is_known(shape: ir.Shape | None) -> bool:
    """Return whether every dimension is a number or has a name."""
    return shape is not None and all(isinstance(n, int) or n.value is not None for n in shape)
