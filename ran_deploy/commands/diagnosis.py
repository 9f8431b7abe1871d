"""What ran-validate --diagnose prints: the finding first, then the regions it rests on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ran_deploy.commands.printing import printable, write_json
from ran_deploy.commands.progress import Counter
from ran_deploy.counts import counted
from ran_deploy.errors import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from ran_deploy.workflows.diagnose import Diagnosis, EngineOutcome
    from ran_deploy.workflows.diagnosis.engine_divergence import Departure, EngineDivergence

__all__ = ["print_diagnosis", "refuse_unused", "run_diagnosis"]

USED = frozenset({"bundle", "backend", "diagnose", "diagnose_output", "device", "cache_dir", "require_signature"})
USED |= {"as_json", "verbose"}
MOST_LOSSES = 8  # the rest is in --json

FINDINGS = {  # by Finding.value
    "agrees": "nothing is at fault: the engine computes what its graph says",
    "engine": "the engine is wrong: built here and now, it leaves the graph it was built from",
    "region": "part of the engine is wrong, though its outputs pass the self-test",
    "stored engine": "the stored engine is wrong, a fresh one right: ran-build BUNDLE --backend {backend} replaces it",
    "recorded outputs": "the outputs recorded at export are not what the graph gives here; export the bundle again",
    "not built": "no engine can be built or loaded: {reason}",
    "not run": "the engine cannot run here: {reason}",
}


def refuse_unused(context: click.Context) -> None:
    """Raise ConfigError for options on the command line that --diagnose would ignore."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in USED
        and context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise ConfigError(f"--diagnose looks at the golden inputs alone; leave out {', '.join(given)}.")


def run_diagnosis(
    bundle: Path,
    backends: tuple[str, ...],
    output: Path | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    *,
    device: str | None,
    as_json: bool,
) -> int:
    """Diagnose and print; return the exit status."""
    try:
        from ran_deploy.workflows.diagnose import DiagnoseConfig, diagnose_bundle
    except ImportError as exc:
        raise BackendUnavailableError(
            f"--diagnose cuts ONNX graphs and needs onnx ({exc}). Install it: pip install onnx onnx-ir onnxruntime."
        ) from exc
    counter = Counter()
    config = DiagnoseConfig(
        bundle=bundle,
        backends=backends,
        output=output,
        device=device,
        cache_dir=cache_dir,
        require_signature=require_signature,
    )
    diagnoses = diagnose_bundle(config, counter.line, counter.count)
    counter.clear()
    if as_json:
        write_json(diagnoses)
    else:
        for diagnosis in diagnoses:
            print_diagnosis(diagnosis)
    return 0 if all(diagnosis.healthy for diagnosis in diagnoses) else 1


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the finding on one backend, and what it rests on."""
    finding = FINDINGS[diagnosis.finding.value].format(backend=diagnosis.backend, reason=diagnosis.reason)
    line(f"{diagnosis.backend} {diagnosis.precision.value}: {finding.rstrip('.')}")
    line(f"  graph   evaluated here it is {shown(diagnosis.recorded_distance)} relative L2 from the recorded outputs")
    print_outcome("stored", diagnosis.stored)
    print_outcome("fresh", diagnosis.fresh)
    if diagnosis.divergence is not None:
        print_divergence(diagnosis, diagnosis.divergence)
    print_losses(diagnosis)


def print_outcome(name: str, outcome: EngineOutcome | None) -> None:
    if outcome is not None:
        line(f"  {name:7} {outcome.self_test.summary if outcome.self_test is not None else outcome.reason}")


def print_divergence(diagnosis: Diagnosis, divergence: EngineDivergence) -> None:
    wrong = divergence.serious or (diagnosis.fresh is not None and not diagnosis.fresh.passed)
    if divergence.departure is not None:
        print_departure(divergence.departure, wrong=wrong)
    else:
        print_no_departure(divergence, wrong=wrong)
    if diagnosis.reproduction is not None:
        kept = diagnosis.reproduction
        line(
            f"  shown by {kept.folder / kept.files[0]} ({counted(kept.batch, 'row')} of input, relative L2 "
            f"{shown(kept.error)}); run it without ran-deploy: python {kept.folder / kept.files[2]}"
        )
    if diagnosis.unwritten is not None:
        line(f"  WARNING: {diagnosis.unwritten}")
    if wrong:
        print_curve(divergence)


def print_departure(departure: Departure, *, wrong: bool) -> None:
    said = "first wrong tensor" if wrong else "coarsest place"
    behind = "on exact inputs" if departure.alone else "behind what comes before it, though not on exact inputs"
    line(
        f"  {said}: {departure.tensor!r} ({departure.operator} {departure.node!r}) in {departure.region}: "
        f"relative L2 {shown(departure.error)} {behind}; {shown(departure.limit)} is allowed"
    )
    inputs = ", ".join(map(repr, departure.inputs))
    line(f"  smallest part that shows it: {counted(departure.nodes, 'node')} from {inputs}")


def print_no_departure(divergence: EngineDivergence, *, wrong: bool) -> None:
    worst = max(divergence.regions, key=lambda region: -1.0 if math.isnan(region.alone) else region.alone)
    where = f"{worst.region} has {shown(worst.alone)} where {shown(divergence.alone_limit)} is allowed"
    if wrong:
        line(f"  no region is wrong by itself nor from the images on; on exact inputs {where}")
    else:
        line(f"  every region is right on exact inputs; at most, {where}")
    if refused := [region for region in divergence.regions if region.refused]:
        line(f"  {counted(len(refused), 'region')} cannot be built alone: {refused[0].region}: {refused[0].refused}")


def print_curve(divergence: EngineDivergence) -> None:
    width = max(len(region.region) for region in divergence.regions)
    line(f"  {'engine against its graph':{width}}   alone    from the images")
    for region in divergence.regions:
        cumulative = "" if region.cumulative is None else shown(region.cumulative)
        mark = "  <- beyond" if region.beyond else ""
        line(f"  {region.region:{width}}   {shown(region.alone):8} {cumulative:15}{mark}".rstrip())


def print_losses(diagnosis: Diagnosis) -> None:
    if diagnosis.losses_missing is not None:
        line(f"  against FP32: not compared, as {diagnosis.losses_missing}")
        return
    ranked = sorted(diagnosis.losses, key=lambda loss: -loss.at_output)
    width = max(len(loss.region) for loss in ranked)
    line(f"  {'graph against FP32':{width}}   adds to outputs   alone    from the images")
    for loss in ranked[:MOST_LOSSES]:
        line(f"  {loss.region:{width}}   {shown(loss.at_output):15}   {shown(loss.alone):8} {shown(loss.cumulative)}")
    if rest := ranked[MOST_LOSSES:]:
        line(f"  {counted(len(rest), 'region')} more with at most {shown(rest[0].at_output)} each; --json has them")


def shown(error: float) -> str:
    """Return a relative L2 for people."""
    return "-" if math.isnan(error) else f"{error:.4f}" if math.isfinite(error) else "NaN"


def line(text: str) -> None:
    click.echo(printable(text))
