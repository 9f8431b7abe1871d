"""Where an engine leaves the graph it was built from: region by region, then tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ran_deploy.converters.extract import behind_pair, extract
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.verification.divergence import Scan, alone_limit, first_beyond, first_that, scan
from ran_deploy.workflows.diagnosis.cuts import EngineCuts, Part

__all__ = ["Departure", "EngineDivergence", "RegionError", "find_departure"]

CURVE_SAMPLES = 24  # engines from the images to a cut: each may take as long to build as the whole


@dataclass(frozen=True, kw_only=True)
class RegionError:
    """How far engines are from the exact evaluation at the end of a region: relative L2, the worst of its outputs.

    `alone`: an engine of the region, given exact inputs. `cumulative`: an engine from the images to the region's end,
    None where none was built. In JSON both are null where outputs are not finite, or the part was `refused`.
    """

    region: str
    outputs: tuple[str, ...]
    alone: float
    cumulative: float | None
    beyond: bool  # alone, it exceeds the limit
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class Departure:
    """The first tensor at which engines are wrong, and the smallest part of the graph that is wrong by itself.

    `node`, of type `operator`, makes `tensor`; its relative L2 `error` exceeds `limit`. `alone`: it is wrong although
    the region's inputs are exact; else only behind what comes before. `inputs` are those of `part`, `nodes` its number
    of nodes, `part_error` its relative L2.
    """

    region: str
    tensor: str
    operator: str
    node: str
    error: float
    limit: float
    alone: bool
    inputs: tuple[str, ...]
    nodes: int
    part_error: float
    part: Part


@dataclass(frozen=True, kw_only=True)
class EngineDivergence:
    """The errors of all regions, in graph order, the limits they are judged by, and the first departure if any."""

    tolerance: float
    alone_limit: float
    batch: int
    regions: tuple[RegionError, ...]
    departure: Departure | None

    @property
    def serious(self) -> bool:
        """Whether a part is further off than the whole engine may be: the outputs may still hide that."""
        return self.departure is not None and self.departure.error > self.tolerance


def find_departure(cuts: EngineCuts, tolerance: float) -> EngineDivergence:
    """Compare engines of parts of a graph with its exact evaluation.

    First each region alone: what is wrong there is wrong whatever comes before. Then from the images to the ends of
    regions: that also shows what goes wrong only behind others. In the first region that is beyond its limit single
    tensors are looked at, and the part before the first wrong one is grown from there towards the images until it is
    wrong by itself.
    """
    regions = cuts.graph.regions
    alone = [cuts.error(part) for part in _alone_parts(cuts)]
    limit = alone_limit(alone, tolerance)
    curve = scan(len(regions), lambda index: cuts.error(_prefix(cuts, index)), tolerance, samples=CURVE_SAMPLES)
    found = first_beyond(range(len(regions)), alone.__getitem__, limit)
    departure = None
    if found is not None:
        departure = _look_inside(cuts, found[0], found[1], limit, tolerance, alone=True)
    elif curve.first is not None:
        departure = _look_inside(cuts, curve.first, curve.errors[curve.first], tolerance, tolerance, alone=False)
    return EngineDivergence(
        tolerance=tolerance,
        alone_limit=limit,
        batch=cuts.batch,
        regions=tuple(_rows(cuts, alone, curve, limit)),
        departure=departure,
    )


def _alone_parts(cuts: EngineCuts) -> list[Part]:
    """Return each region as a part; the tensors they need are evaluated at once."""
    parts = [Part(_ends(cuts, region.outputs), region.inputs) for region in cuts.graph.regions]
    cuts.graph.tensors(name for part in parts for name in (*part.given, *part.outputs))
    return parts


def _prefix(cuts: EngineCuts, index: int) -> Part:
    return Part(_ends(cuts, cuts.graph.regions[index].outputs))


def _ends(cuts: EngineCuts, tensors: Iterable[str]) -> tuple[str, ...]:
    return tuple(behind_pair(cuts.graph.model.graph, name) for name in tensors)


def _rows(cuts: EngineCuts, alone: Sequence[float], curve: Scan, limit: float) -> Iterator[RegionError]:
    for index, (region, error, part) in enumerate(zip(cuts.graph.regions, alone, _alone_parts(cuts), strict=True)):
        yield RegionError(
            region=region.name,
            outputs=region.outputs,
            alone=error,
            cumulative=curve.errors.get(index),
            beyond=error > limit,
            refused=cuts.refusals.get(part),
        )


def _look_inside(
    cuts: EngineCuts, index: int, error: float, limit: float, tolerance: float, *, alone: bool
) -> Departure:
    """Find the first wrong tensor of a region that is wrong at its end, by `error`, and the least that shows it.

    Cutting behind a node can keep an engine from fusing it with the next, and so hide a fault: then the region's end is
    the first tensor that shows it.
    """
    region = cuts.graph.regions[index]
    given = region.inputs if alone else ()
    cuts.graph.tensors(_ends(cuts, region.tensors))
    parts = {name: Part(_ends(cuts, [name]), given) for name in region.tensors}
    first = first_beyond(parts, lambda name: cuts.error(parts[name]), limit)
    tensor, error = first or (region.outputs[-1], error)
    whole = parts[tensor] if first else Part(_ends(cuts, region.outputs), given)
    part = _smallest(cuts, index, tensor, whole, min(limit, error / 2), tolerance)
    graph = cuts.model(part).graph
    node = next(node for node in cuts.graph.model.graph if any(value.name == tensor for value in node.outputs))
    return Departure(
        region=region.name,
        tensor=tensor,
        operator=node.op_type,
        node=node.name or "",
        error=error,
        limit=limit,
        alone=alone,
        inputs=tuple(value.name or "" for value in graph.inputs),
        nodes=len(graph),
        part_error=cuts.error(part),
        part=part,
    )


def _smallest(cuts: EngineCuts, index: int, tensor: str, whole: Part, least: float, tolerance: float) -> Part:
    """Return the least part with the outputs of `whole` that is further off than `least`, and than healthy parts are.

    It is grown from `tensor` of region `index` towards the images, inside that region tensor by tensor, then a region
    at a time; the region that it ends in is then entered tensor by tensor.
    """
    share = tolerance / math.sqrt(len(cuts.graph.regions))

    def shows(candidate: tuple[Part, int]) -> bool:
        part, reached = candidate
        return cuts.error(part) > max(least, share * math.sqrt(index - reached))

    found = first_that(_growing(cuts, index, tensor, whole.outputs, {index}), shows)
    if found is None or found[1] >= index:
        return found[0] if found else whole
    entered = max(0, found[1])
    finer = _growing(cuts, index, tensor, whole.outputs, {index, entered})
    return (first_that((each for each in finer if each[1] <= entered), shows) or found)[0]


def _growing(
    cuts: EngineCuts, index: int, tensor: str, outputs: tuple[str, ...], entered: Collection[int]
) -> Iterator[tuple[Part, int]]:
    """Yield parts that end in `outputs`, each reaching further back than the one before, the last to the images.

    They start at the outputs of regions, in the regions `entered` at any tensor. With each comes the region it starts
    in or behind, -1 for the images.
    """
    starts = []
    for i, region in enumerate(cuts.graph.regions[: index + 1]):
        tensors = region.tensors if i in entered else region.outputs
        starts += [(name, i) for name in (tensors[: tensors.index(tensor)] if i == index else tensors)]
    cuts.graph.tensors(name for name, _ in starts)
    seen: set[tuple[str, ...]] = set()
    for count in range(len(starts), -1, -1):
        model = extract(cuts.graph.model, outputs, given=[name for name, _ in starts[:count]])
        inputs = tuple(value.name or "" for value in model.graph.inputs)
        if inputs not in seen:
            seen.add(inputs)
            yield Part(outputs, tuple(name for name in inputs if name != INPUT)), starts[count - 1][1] if count else -1
