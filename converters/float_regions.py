"""Regions of a network: a partition of the nodes that INT8 is about into parts that people know by name.

A region is one unit of a network (a residual unit of a trunk or of a mask, a gate, the stem, the classifier), found by
the path of the module that each node carries, so it works for any nn.Module.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ran_deploy.converters.graph import module_of
from ran_deploy.converters.quantize import find_weighted_nodes, weight_axis

__all__ = ["FloatRegion", "find_float_regions", "multiply_adds", "readable_region"]

UNIT_LAYERS = 8  # a unit has no more: an Inception unit has 6, a bottleneck 4 with its shortcut
MOST_REGIONS = 100  # each is measured by itself; Attention-56 has 38 units, Attention-92 has 62
STAGE_PART = re.compile(r"stages\.(\d+)\.(\d+)(?:\.(.+))?")  # where our own networks have units and modules
MODULE_PARTS = ("pre", "trunk", "mask", "post")


@dataclass(frozen=True)
class FloatRegion:
    """Nodes, by name, that stay in float or become INT8 together; `multiply_adds` are theirs for one image."""

    name: str
    nodes: tuple[str, ...]
    multiply_adds: int


def find_float_regions(graph: ir.Graph, most: int = MOST_REGIONS) -> tuple[FloatRegion, ...]:
    """Return at most `most` regions that hold each Conv, Gemm and MatMul of the base rule once, in graph order."""
    nodes = find_weighted_nodes(graph)
    paths = [module_of(node) or node.name or "" for node in nodes]
    units = coarsened(units_of(paths), most)
    names = distinct({unit: readable_region(unit, paths) for unit in units})
    members: dict[str, list[ir.Node]] = defaultdict(list)
    for unit, node in zip(units, nodes, strict=True):
        members[unit].append(node)
    return tuple(
        FloatRegion(names[unit], tuple(node.name or "" for node in found), sum(map(multiply_adds, found)))
        for unit, found in members.items()
    )


def units_of(paths: Sequence[str]) -> list[str]:
    """Return for the path of each layer that of its unit: the nearest module around it that has another layer.

    A module of more than UNIT_LAYERS layers is no unit, nor is the whole network: there a layer stands for itself. A
    unit inside another, such as a branch of an Inception unit, is part of the outer one.
    """
    layers = Counter(module for path in paths for module in enclosing(path))
    found = []
    for path in paths:
        module = next((module for module in enclosing(path) if layers[module] > 1), None)
        found.append(module if module is not None and layers[module] <= UNIT_LAYERS else path)
    units = set(found)
    return [next((outer for outer in reversed(enclosing(unit)) if outer in units), unit) for unit in found]


def enclosing(path: str) -> list[str]:
    """Return the modules around `path`, the nearest first, without the whole network."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]


def coarsened(units: Sequence[str], most: int) -> list[str]:
    """Return `units`, the most deeply nested joined with their neighbours until at most `most` are left."""
    units = list(units)
    while len(set(units)) > most:
        depth = max(unit.count(".") for unit in units)
        if depth == 0:
            return units  # one flat list of layers: there is nothing to join them by
        units = [unit.rpartition(".")[0] if unit.count(".") == depth else unit for unit in units]
    return units


def multiply_adds(node: ir.Node) -> int:
    """Return the multiply-adds of a Conv, Gemm or MatMul for one image: weights times places they are used at.

    The weights may be dequantised ones.
    """
    weight, shape = node.inputs[1], node.outputs[0].shape
    assert weight is not None
    assert weight.shape is not None
    sizes = weight.shape.numpy()
    if shape is None:
        return math.prod(sizes)
    sides = [side for side in list(shape)[1:] if isinstance(side, int)]
    return math.prod(sizes) * math.prod(sides) // sizes[weight_axis(node)]


def readable_region(path: str, paths: Collection[str]) -> str:
    """Return what people call the module at `path`: stage1.module2.mask.bottom.unit1; other layouts name themselves.

    `paths` are those of all layers, which tell modules from units.
    """
    staged = STAGE_PART.fullmatch(path)
    if staged is None:
        return re.sub(r"^(stem|embedding)\.\d+$", r"\1", path)
    stage, index, rest = int(staged[1]), int(staged[2]), staged[3]
    modules = {
        int(found[2])
        for other in paths
        if (found := STAGE_PART.fullmatch(other)) and int(found[1]) == stage and is_module_part(found[3])
    }
    if index in modules:
        return f"stage{stage + 1}.module{index}" + (f".{readable_part(rest)}" if rest else "")
    unit = "entry" if index == 0 else f"closing{index - len(modules)}"
    return f"stage{stage + 1}.{unit}" + (f".{rest}" if rest else "")


def is_module_part(rest: str | None) -> bool:
    """Return whether what follows the number in a stage is a part of an attention module."""
    return rest is not None and rest.split(".")[0] in MODULE_PARTS


def readable_part(rest: str) -> str:
    """Return the readable form of a path inside an attention module: mask.down.0.1 is mask.down1.unit2."""
    rest = re.sub(r"\b(down|up|skip)\.(\d+)", lambda match: f"{match[1]}{int(match[2]) + 1}", rest)
    rest = re.sub(
        r"\b(pre|trunk|post|bottom|down\d+|up\d+)\.(\d+)", lambda match: f"{match[1]}.unit{int(match[2]) + 1}", rest
    )
    return re.sub(r"^mask\.head\b", "mask.gate", rest)


def distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Return `names`, path to wish, with equal wishes numbered."""
    found: dict[str, str] = {}
    for path, wish in names.items():
        candidates = itertools.chain([wish], (f"{wish}.{number}" for number in itertools.count(2)))
        found[path] = next(name for name in candidates if name not in found.values())
    return found
