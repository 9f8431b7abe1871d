"""What a dialect graph loses against the FP32 graph, region by region: all of it evaluated exactly as written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ran_deploy.converters.extract import extract
from ran_deploy.converters.regions import Region
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.workflows.diagnosis.cuts import ExactGraph, distance

__all__ = ["RegionLoss", "region_losses"]


@dataclass(frozen=True, kw_only=True)
class RegionLoss:
    """How far a dialect is from FP32 at the end of a region: relative L2, the worst of its outputs.

    `cumulative`: the dialect from the images to here. `alone`: the dialect's region on FP32 inputs. `at_output`: the
    logits, or features, of the FP32 graph with this one region computed as the dialect does; zero where the region
    does not lead to them. `sqnr_db` is that of `cumulative`, None where there is no error.
    """

    region: str
    outputs: tuple[str, ...]
    cumulative: float
    sqnr_db: float | None
    alone: float
    at_output: float


def region_losses(
    dialect: ExactGraph, reference: ExactGraph, progress: Callable[[int], None] = lambda done: None
) -> tuple[RegionLoss, ...]:
    """Compare the regions of a dialect graph with the same tensors of the FP32 graph, in graph order.

    Lowering keeps the names of the tensors that nodes of the network make; a region is left out if one of its tensors
    has no namesake.
    """
    shared = {INPUT} | {name for region in reference.regions for name in region.tensors}
    regions = [region for region in dialect.regions if {*region.inputs, *region.outputs} <= shared]
    names = [name for region in regions for name in (*region.inputs, *region.outputs)]
    lowered, exact = dialect.tensors(names), reference.tensors(names)
    losses = []
    for index, region in enumerate(regions):
        alone = _on_exact_inputs(dialect, region, exact)
        cumulative = max(distance(exact[name], lowered[name]) for name in region.outputs)
        losses.append(
            RegionLoss(
                region=region.name,
                outputs=region.outputs,
                cumulative=cumulative,
                sqnr_db=-20 * math.log10(cumulative) if 0 < cumulative < math.inf else None,
                alone=max(distance(exact[name], alone[name]) for name in region.outputs),
                at_output=_at_output(reference, alone, {n: exact[n] for r in regions[:index] for n in r.outputs}),
            )
        )
        progress(index + 1)
    return tuple(losses)


def _on_exact_inputs(dialect: ExactGraph, region: Region, exact: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of the dialect's region for FP32 inputs, as FP32."""
    part = extract(dialect.model, region.outputs, given=region.inputs)
    feeds = {}
    for value in part.graph.inputs:
        assert value.name is not None
        assert value.dtype is not None
        feeds[value.name] = exact[value.name].astype(value.dtype.numpy(), copy=False)
    return {name: array.astype(np.float32) for name, array in dialect.evaluate(part, feeds).items()}


def _at_output(reference: ExactGraph, replaced: Mapping[str, np.ndarray], before: Mapping[str, np.ndarray]) -> float:
    """Return how far the FP32 graph's outputs move where it goes on from the tensors `replaced`.

    `before` are exact tensors that do not depend on them.
    """
    expected = reference.tensors([OUTPUT])[OUTPUT]
    if OUTPUT in replaced:
        return distance(expected, replaced[OUTPUT])
    given = {**reference.tensors([INPUT]), **before, **replaced}
    rest = extract(reference.model, [OUTPUT], given=[name for name in given if name not in (INPUT, OUTPUT)])
    feeds = {value.name or "": given[value.name or ""] for value in rest.graph.inputs}
    return distance(expected, reference.evaluate(rest, feeds)[OUTPUT])
