"""The attention of a network as further outputs of its graph: where masks weigh a trunk, and their means."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import ATTENTION, MODULE, add_constant, array_of, insert_after, module_of
from ran_deploy.errors import ConversionError
from ran_deploy.manifest import AttentionRecord

__all__ = ["Gate", "add_attention_outputs", "find_gates", "readable_names"]

STAGED = re.compile(r"stages\.(\d+)\.\d+")  # where our own networks have their modules


@dataclass(frozen=True)
class Gate:
    """A soft mask, (N, C, h, w) or (N, 1, h, w), that weighs a trunk in the module with this path."""

    mask: ir.Value
    module: str


def add_attention_outputs(model: ir.Model) -> tuple[AttentionRecord, ...]:
    """Give `model` one more output for each soft mask, in place: its mean over channels, float32 (batch, h, w).

    Before: mask -> (Add 1 ->) Mul with the trunk -> ...
    After:  the same, and mask -> ReduceMean over axis 1 -> further graph output

    Nothing that led to the other outputs changes. Returned is what they are, in the order of the outputs.
    Raises: ConversionError if the network has no such mask.
    """
    gates = find_gates(model.graph)
    if not gates:
        raise ConversionError(
            "The network has no soft mask: nothing in it is a map between 0 and 1, or of unit vectors, that is "
            "multiplied with features of its height and width. Leave --with-attention out."
        )
    names = readable_names([gate.module for gate in gates])
    return tuple(add_mean(model.graph, gate, name) for gate, name in zip(gates, names, strict=True))


def find_gates(graph: ir.Graph) -> list[Gate]:
    """Return the soft masks of a float graph, in the order in which they are applied, each once.

    (1 + M) * T and M * T, with M from a Sigmoid or an L2 norm over channels, of T's height and width. A factor for each
    channel (squeeze and excitation) is no map, and x * sigmoid(x) is an activation.
    """
    gates: dict[ir.Value, Gate] = {}
    for node in graph:
        if node.op_type != "Mul" or node.domain != "":
            continue
        for factor, trunk in (node.inputs, tuple(reversed(node.inputs))):
            mask = without_one(factor)
            if mask is not None and trunk is not None and is_soft(mask, trunk) and weighs(mask, trunk):
                gates.setdefault(mask, Gate(mask, module_of(node)))
                break
    return list(gates.values())


def producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes a tensor, None for inputs and constants."""
    return value.producer() if value is not None else None


def without_one(value: ir.Value | None) -> ir.Value | None:
    """Return M where `value` is M + 1, else `value` itself."""
    node = producer(value)
    if node is None or node.op_type != "Add" or node.domain != "":
        return value
    for term, other in (node.inputs, tuple(reversed(node.inputs))):
        constant = array_of(other)
        if constant is not None and bool((constant == 1).all()):
            return term
    return value


def is_soft(mask: ir.Value, trunk: ir.Value) -> bool:
    """Return whether `mask` comes from a Sigmoid of something else than the trunk, or is x / ||x|| over channels."""
    node = mask.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "Sigmoid":
        return node.inputs[0] is not trunk
    return node.op_type == "Div" and divides_by_its_norm(node)


def divides_by_its_norm(node: ir.Node) -> bool:
    """Return whether a Div is x / max(||x||, eps), the norm over channels."""
    data, divisor = node.inputs
    norm = producer(divisor)
    if norm is not None and norm.op_type in ("Clip", "Max"):
        norm = producer(norm.inputs[0])
    if norm is None or norm.op_type != "ReduceL2" or norm.inputs[0] is not data:
        return False
    axes = array_of(norm.inputs[1]) if len(norm.inputs) > 1 else None
    return axes is not None and axes.tolist() == [1]


def weighs(mask: ir.Value, trunk: ir.Value) -> bool:
    """Return whether `mask` is a map of the trunk's height and width, with its channels or one for all."""
    if mask.shape is None or trunk.shape is None or len(mask.shape) != 4 or len(trunk.shape) != 4:
        return False
    channels, *size = mask.shape[1:]
    is_map = all(isinstance(side, int) for side in size) and size != [1, 1]
    return is_map and list(trunk.shape[2:]) == size and channels in (1, trunk.shape[1])


def readable_names(modules: Sequence[str]) -> list[str]:
    """Return one name for each module path, all different.

    'stages.0.1' and 'stages.0.2' are stage1.module1 and stage1.module2, other paths name themselves; a module that is
    not known is 'attention', and of equal names all but the first are numbered.
    """
    names: list[str] = []
    modules_in = Counter[str]()
    for module in modules:
        staged = STAGED.fullmatch(module)
        modules_in.update([staged[1]] if staged else [])
        wish = f"stage{int(staged[1]) + 1}.module{modules_in[staged[1]]}" if staged else module or "attention"
        candidates = itertools.chain([wish], (f"{wish}.{number}" for number in itertools.count(2)))
        names.append(next(name for name in candidates if name not in names))
    return names


def add_mean(graph: ir.Graph, gate: Gate, name: str) -> AttentionRecord:
    """Add the mean of one mask over its channels as a graph output."""
    assert gate.mask.shape is not None
    batch, _, height, width = gate.mask.shape
    assert isinstance(height, int)
    assert isinstance(width, int)
    record = AttentionRecord(name=name, module=gate.module, height=height, width=width)
    mean = ir.Value(name=record.output, shape=ir.Shape([batch, height, width]), type=gate.mask.type)
    axes = add_constant(graph, f"{record.output}_axes", np.array([1], np.int64))
    node = ir.node("ReduceMean", [gate.mask, axes], {"keepdims": 0}, outputs=[mean], name=f"{record.output}/ReduceMean")
    node.metadata_props[MODULE] = ATTENTION
    insert_after(gate.mask, graph, [node])
    graph.outputs.append(mean)
    return record
