"""What a profile owes to every convolution and matrix product of a graph: one layer, of the part that its path says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from ran_deploy.converters.attribution import attribute
from ran_deploy.converters.graph import MODULE
from ran_deploy.network_parts import Part
from ran_deploy.runtime.profiles.layer_time import LayerTime


def product_paths(graph: ir.Graph) -> dict[str | None, str]:
    """Return the module paths of the convolutions and matrix products, by the names of their nodes."""
    return {node.name: node.metadata_props[MODULE] for node in graph if node.op_type in ("Conv", "Gemm", "MatMul")}


def part_of(path: str) -> Part:
    """Return the part that the module path of a convolution or matrix product says."""
    parts = {".mask.": Part.MASK, ".trunk.": Part.TRUNK, "stem.": Part.STEM, "stages.": Part.UNITS}
    return next((part for text, part in parts.items() if text in path), Part.CLASSIFIER)


def assert_products_are_attributed(graph: ir.Graph, layers: Sequence[LayerTime]) -> None:
    """Every one is in exactly one layer, and each layer is of the part of those in it."""
    attributions = attribute(graph, [layer.origins for layer in layers])
    paths = product_paths(graph)
    found = [(name, each) for each in attributions for name in each.nodes if name in paths]
    assert Counter(name for name, _ in found) == dict.fromkeys(paths, 1)
    for name, each in found:
        assert each.place is not None, each
        assert each.place.part is part_of(paths[name]), each
