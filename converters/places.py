"""Which part of a Residual Attention Network each node of a graph belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from ran_deploy.converters.branches import Branches, find_branches
from ran_deploy.converters.graph import ATTENTION, MODULE
from ran_deploy.converters.prologue import PROLOGUE
from ran_deploy.converters.regions import find_computing_nodes
from ran_deploy.network_parts import Part

__all__ = ["Place", "find_places"]


@dataclass(frozen=True)
class Place:
    """The part a node belongs to; `module` names the attention module it is in, "" outside."""

    part: Part
    module: str = ""


def find_places(graph: ir.Graph) -> dict[ir.Node, Place]:
    """Return the place of every node that computes, not of those that only carry tensors (Q/DQ, Cast).

    Trunk, soft mask and gate are found by what leads to a gate, so networks of other families have them too. The stem
    is the module of the first convolution, the classifier all behind the module of the last one; the rest are units.
    """
    nodes = [*find_computing_nodes(graph)]
    branches = find_branches(graph)
    first, last = stem_and_last(nodes)
    places = {}
    for index, node in enumerate(nodes):
        outside = Part.STEM if index <= first else Part.CLASSIFIER if index > last else Part.UNITS
        places[node] = place_of(node, branches, outside)
    prologue = {node: Place(Part.PROLOGUE) for node in graph if node.metadata_props.get(MODULE) == PROLOGUE}
    return {**places, **prologue}  # its Cast is the network's, too


def place_of(node: ir.Node, branches: tuple[Branches, ...], outside: Part) -> Place:
    """Return the place of a node, which is in the part `outside` where it is in no branch."""
    path = node.metadata_props.get(MODULE, "")
    if path == ATTENTION:
        return Place(Part.ATTENTION)
    for each in branches:
        for part, members in ((Part.GATE, each.gate), (Part.MASK, each.mask), (Part.TRUNK, each.trunk)):
            if node in members:
                return Place(part, each.name)
    around = (each.name for each in branches if each.path and path.startswith(f"{each.path}."))
    return Place(outside, next(around, ""))


def stem_and_last(nodes: list[ir.Node]) -> tuple[int, int]:
    """Return the indices of the last node of the stem, -1 without one, and of the last one before the classifier."""
    modules = [node.metadata_props.get(MODULE, "").partition(".")[0] for node in nodes]
    convolutions = [modules[index] for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        return -1, len(nodes)
    end = {module: index for index, module in enumerate(modules)}
    stem, last = convolutions[0], convolutions[-1]
    return (-1 if stem == last else end[stem]), end[last]
