"""A graph as a line of regions: stretches of nodes that came from one module, and the tensors between them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ran_deploy.converters.graph import MODULE

__all__ = ["ROOT", "Region", "find_regions"]

ROOT = "(network)"  # what belongs to no module below the network itself
# They stand between two nodes of the network and go with the one that reads them: without the Q/DQ in front of it a
# convolution would run in float, and other kernels than the engine's would be judged.
CARRIERS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})


@dataclass(frozen=True, kw_only=True)
class Region:
    """Nodes that follow each other in graph order, so no path leaves the region and comes back into it.

    `name` is a module's path, numbered where the module is entered again. `inputs` are the tensors it reads from before
    it, graph inputs among them; `tensors` are all floating-point tensors its nodes make, in graph order, but for those
    of Q/DQ and Cast; `outputs` are those of them that are read behind the region, or are the graph's own.
    """

    name: str
    inputs: tuple[str, ...]
    tensors: tuple[str, ...]
    outputs: tuple[str, ...]


def find_regions(graph: ir.Graph) -> tuple[Region, ...]:
    """Return the regions of a graph whose nodes carry module paths, in graph order.

    A region is a module with those of its children that have none: a residual unit, a mask's head. Every node that
    depends on the graph's inputs is in one, but for Q/DQ and Cast; only floating-point tensors cross a boundary.
    """
    nodes = list(find_computing_nodes(graph))
    labels = region_labels(nodes)
    runs = [
        (label, [node for _, node in pairs])
        for label, pairs in itertools.groupby(zip(labels, nodes, strict=True), key=lambda pair: pair[0])
    ]
    inputs = [find_inputs(run) for _, run in runs]
    read = {value for values in inputs for value in values} | set(graph.outputs)
    regions = []
    for name, (_, run), outer in zip(numbered([label for label, _ in runs]), runs, inputs, strict=True):
        tensors = [value for node in run for value in node.outputs if value.dtype in FLOATS]
        regions.append(
            Region(
                name=name,
                inputs=names(outer),
                tensors=names(tensors),
                outputs=names([value for value in tensors if value in read]),
            )
        )
    return tuple(region for region in regions if region.outputs)


def find_computing_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield the nodes that depend on the graph's inputs, without what carries tensors from one to the next."""
    live = set(graph.inputs)
    for node in graph:
        if any(value in live for value in node.inputs if value is not None):
            live.update(node.outputs)
            if not is_carrier(node):
                yield node


def is_carrier(node: ir.Node) -> bool:
    """Return whether the node only changes how a tensor is stored, and does not make a graph output."""
    return node.op_type in CARRIERS and node.domain == "" and not node.outputs[0].is_graph_output()


def region_labels(nodes: Sequence[ir.Node]) -> list[str]:
    """Return for each node the path of the module its region is named after, "" for the network itself."""
    paths = [node.metadata_props.get(MODULE) for node in nodes]
    parents = {path.rpartition(".")[0] for path in paths if path}
    labels: list[str] = []
    for path in paths:
        if path is None:  # a conversion put the node there
            labels.append(labels[-1] if labels else "")
        elif path in parents or "." not in path:
            labels.append(path)
        else:
            labels.append(path.rpartition(".")[0])
    return fill_gaps(labels)


def fill_gaps(labels: Sequence[str]) -> list[str]:
    """Return `labels` with "" between two others replaced by the path that those have in common.

    The exporter loses the module of what a network writes as a plain sum.
    """
    filled = list(labels)
    for label, group in itertools.groupby(range(len(labels)), key=labels.__getitem__):
        indices = list(group)
        before, after = indices[0] - 1, indices[-1] + 1
        if label == "" and before >= 0 and after < len(labels):
            for index in indices:
                filled[index] = common_path(labels[before], labels[after])
    return filled


def common_path(first: str, second: str) -> str:
    """Return the path of the innermost module that holds both."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return ".".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def find_inputs(run: Sequence[ir.Node]) -> list[ir.Value]:
    """Return the floating-point tensors and graph inputs that the nodes of one region depend on, each once."""
    made = {value for node in run for value in node.outputs}
    found: dict[ir.Value, None] = {}
    pending = [value for node in reversed(run) for value in reversed(node.inputs)]
    seen: set[ir.Value] = set()
    while pending:
        value = pending.pop()
        if value is None or value in made or value in seen:
            continue
        seen.add(value)
        producer = value.producer()
        if value.is_graph_input() or (producer is not None and value.dtype in FLOATS and not is_carrier(producer)):
            found[value] = None
        elif producer is not None:
            pending.extend(reversed(producer.inputs))
    return [value for value in found if depends_on_input(value)]


def depends_on_input(value: ir.Value) -> bool:
    """Return whether a path leads from a graph input to the tensor."""
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        if current.is_graph_input():
            return True
        producer = current.producer()
        sources = [source for source in (producer.inputs if producer else ()) if source is not None]
        pending.extend(source for source in sources if source not in seen)
        seen.update(sources)
    return False


def numbered(labels: Sequence[str]) -> list[str]:
    """Return the labels with a number behind each that was there before; "" is the network."""
    count: Counter[str] = Counter()
    found = []
    for label in labels:
        count[label] += 1
        found.append((label or ROOT) + (f" #{count[label]}" if count[label] > 1 else ""))
    return found


def names(values: Collection[ir.Value]) -> tuple[str, ...]:
    return tuple(value.name or "" for value in values)
