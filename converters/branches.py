"""The two branches of each attention module, and where the one weighs the other, found in any lowering of a graph."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from ran_deploy.converters.attention import Gate, find_gates, readable_names, without_one

__all__ = ["Branches", "find_branches"]


@dataclass(frozen=True, kw_only=True)
class Branches:
    """The nodes of one attention module: those that lead to its soft mask M alone, its trunk T, and (1 + M) T.

    `name` is for people, such as stage1.module1; `path` is the module's, "" where that is unknown.
    """

    name: str
    path: str
    mask: frozenset[ir.Node]
    trunk: frozenset[ir.Node]
    gate: frozenset[ir.Node]


def find_branches(graph: ir.Graph) -> tuple[Branches, ...]:
    """Return the branches of every soft mask, in the order in which they are applied."""
    gates = find_gates(graph)
    names = readable_names([gate.module for gate in gates])
    return tuple(branches_of(gate, name) for gate, name in zip(gates, names, strict=True))


def branches_of(gate: Gate, name: str) -> Branches:
    """Return the branches that meet in a gate."""
    weighings = find_weighings(gate.mask)
    trunks = [value for factor, node in weighings for value in node.inputs if value is not None and value is not factor]
    mask = ancestors([gate.mask]) - ancestors(trunks)
    products = {node for _, node in weighings}
    sums = {node for factor, _ in weighings if factor is not gate.mask and (node := factor.producer()) is not None}
    return Branches(
        name=name,
        path=gate.module,
        mask=frozenset(mask),
        trunk=frozenset(ancestors(trunks) - ancestors(find_forks(mask))),
        gate=frozenset(products | sums),
    )


def find_weighings(mask: ir.Value) -> list[tuple[ir.Value, ir.Node]]:
    """Return each Mul by a mask M with the factor it has for it: M, or 1 + M."""
    factors = [mask, *(node.outputs[0] for node in mask.consumers() if without_one(node.outputs[0]) is mask)]
    return [(factor, node) for factor in factors for node in factor.consumers() if node.op_type == "Mul"]


def find_forks(mask: Collection[ir.Node]) -> list[ir.Value]:
    """Return the tensors at which a mask leaves the trunk: what it reads from elsewhere that depends on no such other.

    Implementations that add the trunk's end to the mask read that as well.
    """
    read = {value for node in mask for value in node.inputs if value is not None and value.producer() not in mask}
    before = {value: ancestors([value]) for value in read}
    return [
        value for value in read if not any(other.producer() in before[value] for other in read if other is not value)
    ]


def ancestors(values: Collection[ir.Value]) -> set[ir.Node]:
    """Return the nodes that `values` depend on, with those that make them."""
    pending = [node for value in values if (node := value.producer()) is not None]
    found = set(pending)
    while pending:
        for value in pending.pop().inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in found:
                found.add(producer)
                pending.append(producer)
    return found
