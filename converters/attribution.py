"""What an engine's kernels do of the graph it was built from, and which part of the network that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ran_deploy.converters.float_regions import multiply_adds
from ran_deploy.converters.graph import module_of
from ran_deploy.converters.places import Place, find_places
from ran_deploy.converters.regions import CARRIERS

__all__ = ["Attribution", "attribute"]

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
WITH_PARAMETERS = WEIGHTED | {"BatchNormalization"}  # their work is done somewhere, whether a kernel names it or not


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """The graph nodes one kernel does, by name, in graph order, and where that is.

    `place` is None where they are in several parts and no convolution or matrix product says in which, or there are
    none; `path` is the module of what it is counted for, "" where that is unknown. `carries`: it does nothing but Q/DQ
    and Cast. `multiply_adds` are for one image.
    """

    nodes: tuple[str, ...]
    place: Place | None
    path: str
    carries: bool
    multiply_adds: int


def attribute(graph: ir.Graph, kernels: Sequence[Sequence[str]]) -> tuple[Attribution, ...]:
    """Return for each kernel what it does of `graph`, the one the engine was built from.

    `kernels` are the names each goes by, of nodes or of the tensors they make; others are passed over. What no kernel
    names was fused: a convolution, matrix product or BatchNormalization goes to the kernel that names what comes of
    it. A kernel that does several parts counts for that of its convolution or matrix product.
    """
    found = {name: node for node in graph for name in (node.name, *(output.name for output in node.outputs)) if name}
    named = [dict.fromkeys(found[name] for name in names if name in found) for names in kernels]
    unnamed = set(graph) - {node for nodes in named for node in nodes}
    places, order = find_places(graph), {node: index for index, node in enumerate(graph)}
    attributions = []
    for nodes in named:
        fused = [node for each in nodes for node in fused_before(each, unnamed)]
        unnamed -= set(fused)
        attributions.append(attribution_of(sorted({*nodes, *fused}, key=order.__getitem__), places))
    return tuple(attributions)


def fused_before(node: ir.Node, unnamed: set[ir.Node]) -> list[ir.Node]:
    """Return the unnamed nodes from `node` up to the nearest with parameters, none where no such node is before it."""
    found: list[ir.Node] = []
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is None or producer not in unnamed:
            continue
        before = [] if producer.op_type in WITH_PARAMETERS else fused_before(producer, unnamed)
        if before or producer.op_type in WITH_PARAMETERS:
            found += [*before, producer]
    return found


def attribution_of(nodes: Sequence[ir.Node], places: Mapping[ir.Node, Place]) -> Attribution:
    """Return the attribution of a kernel that does these nodes."""
    placed = [node for node in nodes if node in places]
    deciding = [node for node in placed if node.op_type in WEIGHTED] or placed
    candidates = {places[node] for node in deciding}
    return Attribution(
        nodes=tuple(node.name or "" for node in nodes),
        place=candidates.pop() if len(candidates) == 1 else None,
        path=module_of(deciding[0]) if deciding else "",
        carries=bool(nodes) and not placed and all(node.op_type in CARRIERS for node in nodes),
        multiply_adds=sum(multiply_adds(node) for node in nodes if node.op_type in WEIGHTED),
    )
