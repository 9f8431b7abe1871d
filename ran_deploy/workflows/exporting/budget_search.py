"""The search for what stays in float: looks at the drop with more or fewer regions kept, and the record of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from ran_deploy.budget_record import BudgetLook
from ran_deploy.calibration.search import fewest_kept
from ran_deploy.calibration.sensitivity import Sensitivity, kept_shares, most_harmful_first
from ran_deploy.converters.float_regions import find_float_regions
from ran_deploy.counts import counted
from ran_deploy.errors import BudgetError
from ran_deploy.verification.statistics import PairedOutcome, decimals, images_needed, rounded_up
from ran_deploy.workflows.exporting.budget_drop import DropMeter
from ran_deploy.workflows.exporting.output_errors import OutputErrors
from ran_deploy.workflows.exporting.quantization import int8_graph

__all__ = ["FloatSearch", "Found"]

MOST_FLOAT = 0.5  # of the multiply-adds: with more of them in float an FP16 export is the better one
NAMED_REGIONS = 3

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search found: the first `kept` of `regions` stay in float, which are these `nodes` of the graph.

    `regions` is empty where nothing had to be kept. `float_multiply_adds` is their share, 0..1.
    """

    kept: int
    regions: tuple[Sensitivity, ...]
    nodes: tuple[str, ...]
    float_multiply_adds: float
    looks: tuple[BudgetLook, ...]


class FloatSearch:
    """Which regions of the float graph `model`, with calibrated `ranges`, stay in float to lose at most `max_drop_pp`.

    `dialects` are asked in this order and all of them must pass: the cheapest to evaluate should come first.
    """

    def __init__(
        self,
        model: ir.Model,
        ranges: Mapping[str, float],
        *,
        max_drop_pp: float,
        dialects: Sequence[str],
        meter: DropMeter,
        errors: OutputErrors,
        report: Report,
        progress: Progress,
    ) -> None:
        self._model, self._ranges = model, ranges
        self._max_drop_pp, self._dialects = max_drop_pp, dialects
        self._meter, self._errors = meter, errors
        self._report, self._progress = report, progress
        self._regions = {region.name: region for region in find_float_regions(model.graph)}
        self._looks: list[tuple[BudgetLook, PairedOutcome]] = []

    def run(self) -> Found:
        """Find what is kept. Raises: BudgetError if as much as may be kept is not enough."""
        kept = fewest_kept(self._most, self._passes)
        if kept is None:
            raise BudgetError(self._failure())
        self._report(f"kept {self._amount(kept)} in float" if kept else "all INT8 is within the budget")
        return Found(
            kept=kept,
            regions=self._ranking if kept else (),
            nodes=self._nodes(kept),
            float_multiply_adds=self._shares[kept] if kept else 0.0,
            looks=tuple(look for look, _ in self._looks),
        )

    @cached_property
    def _ranking(self) -> tuple[Sensitivity, ...]:
        """The regions in the order in which they are kept; asking for it the first time measures each of them."""
        images, total = len(self._errors.inputs), len(self._regions)
        self._report(f"sensitivity: {counted(total, 'region')}, each alone in INT8, on {counted(images, 'image')}")
        found = []
        for done, region in enumerate(self._regions.values(), 1):
            others = [node for other in self._regions.values() if other is not region for node in other.nodes]
            error = self._errors.of(int8_graph(self._model, self._ranges, others))
            found.append(Sensitivity(name=region.name, output_error=error, multiply_adds=region.multiply_adds))
            self._progress(done * images, total * images)
        ranking = most_harmful_first(found)
        worst = ", ".join(f"{region.name} {region.output_error:.3f}" for region in ranking[:NAMED_REGIONS])
        self._report(f"the most harmful, by relative L2 of the outputs: {worst}")
        return ranking

    @cached_property
    def _shares(self) -> tuple[float, ...]:
        return kept_shares(self._ranking)

    def _most(self) -> int:
        """Return how many regions may be kept at most."""
        return max(kept for kept, share in enumerate(self._shares) if share <= MOST_FLOAT)

    def _nodes(self, kept: int) -> tuple[str, ...]:
        return (
            tuple(node for region in self._ranking[:kept] for node in self._regions[region.name].nodes) if kept else ()
        )

    def _amount(self, kept: int) -> str:
        """Return how much that is: '3 of 38 regions, 6.2 % of multiply-adds'."""
        return f"{kept} of {counted(len(self._regions), 'region')}, {100 * self._shares[kept]:.1f} % of multiply-adds"

    def _passes(self, kept: int, confidence: float) -> bool:
        """Look at each dialect in turn; the first that fails ends it."""
        artifact = int8_graph(self._model, self._ranges, self._nodes(kept))
        return all(self._dialect_passes(artifact, dialect, kept, confidence) for dialect in self._dialects)

    def _dialect_passes(self, artifact: ir.Model, dialect: str, kept: int, confidence: float) -> bool:
        allowed = self._max_drop_pp
        outcome = self._meter.measure(artifact, dialect, lambda so_far: so_far.drop_ci95_pp[0] > allowed)
        bound = outcome.drop_interval_pp(confidence)[1]
        passed = bound <= allowed
        look = BudgetLook(
            kept_regions=kept,
            float_multiply_adds=self._shares[kept] if kept else 0.0,
            dialect=dialect,
            images=outcome.images,
            drop_pp=outcome.drop_pp,
            bound_pp=bound,
            confidence=confidence,
            passed=passed,
        )
        self._looks.append((look, outcome))
        what = f"{self._amount(kept)} in float" if kept else "all INT8"
        measured = _measured(look, outcome, allowed)
        self._report(f"{what}, {dialect}: {measured}: {'within' if passed else 'beyond'} the budget")
        return passed

    def _failure(self) -> str:
        """Say how close it came, what cost most, and what to do."""
        look, outcome = self._looks[-1]
        measured = _measured(look, outcome, self._max_drop_pp)
        most = f"with {self._amount(look.kept_regions)} in float" if look.kept_regions else "all in INT8"
        worst = ", ".join(f"{region.name} ({region.output_error:.3f})" for region in self._ranking[:NAMED_REGIONS])
        needed = images_needed(outcome, self._max_drop_pp, look.confidence)
        more = f"give about {rounded_up(needed):,} validation images, if the drop stays the same; or " if needed else ""
        return (
            f"No INT8 within {self._max_drop_pp:g} points was found. It came closest {most}, where at most "
            f"{MOST_FLOAT:.0%} of the multiply-adds may be: {look.dialect} {measured}. The "
            f"most harmful regions, by relative L2 of the outputs: {worst}. No bundle is written: {more}choose "
            "--precision fp16 or a larger --max-drop."
        )


def _measured(look: BudgetLook, outcome: PairedOutcome, allowed_pp: float) -> str:
    """Return a measurement in words."""
    bound = f"{look.bound_pp:+.{decimals(look.bound_pp, allowed_pp)}f}"
    return (
        f"drop {look.drop_pp:+.2f} points on {counted(look.images, outcome.unit)}, at most {bound} "
        f"({100 * look.confidence:.4g} %)"
    )
