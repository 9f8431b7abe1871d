"""Write a product with a reciprocal as a division."""

from __future__ import annotations

import onnx_ir as ir

from ran_deploy.converters.graph import MODULE, module_of


def divide_directly(model: ir.Model) -> int:
    """Replace every Mul by a Reciprocal that nothing but products reads.

    Before: Mul(x, Reciprocal(Sqrt(variance)))
    After:  Div(x, Sqrt(variance))              Reciprocal is left for remove_unused

    The exporter writes rsqrt so. OpenVINO knows (x - mean(x)) / sqrt(variance) as one normalisation. Of the product it
    computes the pieces, and behind an int8 convolution without a bias OpenVINO 2026.4.1 gets x - mean(x) wrong, for
    which there is `forked_convolutions`.
    """
    products = find_products(model.graph)
    for product, index in products:
        divide(model.graph, product, index)
    return len(products)


def find_products(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """Return the Mul nodes that can become a Div, each with the index of its first factor that is a reciprocal."""
    return [
        (node, reciprocals[0])
        for node in graph
        if node.op_type == "Mul"
        and node.domain == ""
        and (reciprocals := [i for i, value in enumerate(node.inputs) if is_plain_reciprocal(value)])
    ]


def is_plain_reciprocal(value: ir.Value | None) -> bool:
    """Return whether a Reciprocal makes the tensor and only Mul nodes read it."""
    producer = value.producer() if value is not None else None
    return (
        producer is not None
        and producer.op_type == "Reciprocal"
        and producer.domain == ""
        and not producer.outputs[0].is_graph_output()
        and all(reader.op_type == "Mul" and reader.domain == "" for reader in producer.outputs[0].consumers())
    )


def divide(graph: ir.Graph, product: ir.Node, index: int) -> None:
    """Put Div in the place of `product`, whose factor at `index` is a reciprocal."""
    factor, inverse, output = product.inputs[1 - index], product.inputs[index], product.outputs[0]
    assert inverse is not None
    reciprocal = inverse.producer()
    assert reciprocal is not None
    quotient = ir.Value(name=output.name, shape=output.shape, type=output.type)
    division = ir.node("Div", [factor, reciprocal.inputs[0]], outputs=[quotient], name=product.name)
    division.metadata_props[MODULE] = module_of(product)
    graph.insert_before(product, [division])
    output.replace_all_uses_with(quotient, replace_graph_outputs=True)
    graph.remove(product, safe=True)
