"""Write the mean over height and width as a pooling."""

from __future__ import annotations

import onnx_ir as ir

from ran_deploy.converters.graph import MODULE, array_of, module_of, unused_name


def pool_spatial_mean(model: ir.Model) -> int:
    """Replace every mean over height and width of a 4-D tensor by GlobalAveragePool.

    Before: ReduceMean(x, axes=(2, 3), keepdims=k)
    After:  GlobalAveragePool(x), and Flatten behind it where k is 0

    GlobalAveragePool is the same in all opsets, while the axes of ReduceMean became an input in 18, which stops
    conversions down to 17 (TensorRT 8).
    """
    means = find_spatial_means(model.graph)
    for mean in means:
        become_pool(model.graph, mean)
    return len(means)


def find_spatial_means(graph: ir.Graph) -> list[ir.Node]:
    """Return the ReduceMean nodes over axes 2 and 3 of a 4-D input."""
    return [node for node in graph if node.op_type == "ReduceMean" and node.domain == "" and is_spatial(node)]


def is_spatial(node: ir.Node) -> bool:
    """Return whether the node reduces exactly height and width of an NCHW tensor."""
    data = node.inputs[0]
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if data is None or data.shape is None or len(data.shape) != 4 or axes is None:
        return False
    return sorted(int(axis) % 4 for axis in axes) == [2, 3]


def become_pool(graph: ir.Graph, mean: ir.Node) -> None:
    """Put GlobalAveragePool and, for a mean without kept axes, Flatten in the place of `mean`."""
    data, output = mean.inputs[0], mean.outputs[0]
    assert data is not None
    assert data.shape is not None
    tags = {MODULE: module_of(mean)}
    pool = ir.node("GlobalAveragePool", [data], name=mean.name, metadata_props=dict(tags))
    nodes, result = [pool], pool.outputs[0]
    if mean.attributes.get_int("keepdims", 1) == 0:
        result.name = unused_name(graph, f"{output.name}_pooled")
        result.type, result.shape = output.type, ir.Shape([data.shape[0], data.shape[1], 1, 1])
        flatten = ir.node("Flatten", [result], {"axis": 1}, name=f"{mean.name}_flatten", metadata_props=dict(tags))
        nodes, result = [pool, flatten], flatten.outputs[0]
    result.name, result.type, result.shape = output.name, output.type, output.shape
    graph.insert_before(mean, nodes)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(mean, safe=True)
