"""ran-validate: does the engine compute what the network computes, and how accurate is it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ran_deploy.commands.certificate_lines import print_certificate
from ran_deploy.commands.compare_lines import print_changes, print_compared
from ran_deploy.commands.detail_lines import print_details
from ran_deploy.commands.diagnosis import refuse_unused, run_diagnosis
from ran_deploy.commands.engine_lines import half_pixel_note
from ran_deploy.commands.options import (
    backend_option,
    cache_dir_option,
    device_option,
    require_signature_option,
    verbose_option,
    version_option,
)
from ran_deploy.commands.printing import printable, write_json
from ran_deploy.commands.progress import Counter
from ran_deploy.commands.running import run_command
from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError

if TYPE_CHECKING:
    from ran_deploy.report.schema import AttentionFigures, EmbeddingFigures, EngineReport, ValidationReport
    from ran_deploy.verification import LogitErrors
    from ran_deploy.verification.attention import ModuleFidelity
    from ran_deploy.workflows.validate import ValidateConfig

MOST_MODULES = 6  # of the attention, on a terminal


@click.command(name="ran-validate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Labelled images: folder by class, CIFAR, IDX or .npz.")
@click.option(
    "--unlabelled",
    type=click.Path(path_type=Path),
    help="Images without labels: how often classes change bounds the drop in accuracy.",
)
@click.option("--reference", type=click.Path(path_type=Path), help="Checkpoint.  [default: the bundle's FP32 graph]")
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="OTHER.ran", help="Another bundle: the reference of this one."
)
@click.option("--architecture", metavar="NAME", help="What --reference is, where its keys cannot tell.")
@click.option("--model", metavar="PACKAGE.MODULE:FACTORY", help="Builds the network of --reference; is executed.")
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="For an embedding: lines of two images below --data and 1 (same) or 0.  [default: pairs made of the classes]",
)
@backend_option(
    extra=("auto", "all"),
    multiple=True,
    default=["auto"],
    show_default=True,
    help="Engine to check; repeatable. With 'all', engines that cannot run here are estimated by emulation.",
)
@click.option(
    "--max-drop", type=float, metavar="PP", help="Fail unless accuracy provably drops by at most PP percentage points."
)
@click.option("--limit", type=int, metavar="N", help="Use N images only, balanced over the classes of --data.")
@click.option("--seed", type=int, metavar="N", help="Gives the random order of --unlabelled images.  [default: 0]")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report to FILE.html or FILE.json.")
@click.option(
    "--details/--no-details",
    default=None,
    help="Also the error of each layer, and how fast and large the engines are.  [default: in the --report alone]",
)
@click.option(
    "--diagnose",
    is_flag=True,
    help="Find the layer at which the engine leaves its graph, and where the graph leaves FP32, on the golden inputs.",
)
@click.option(
    "--diagnose-output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where --diagnose writes the smallest graph that shows a fault.  [default: NAME-diagnosis]",
)
@device_option()
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@verbose_option()
@version_option()
def validate(
    bundle: Path,
    data: Path | None,
    unlabelled: Path | None,
    reference: Path | None,
    compare: Path | None,
    architecture: str | None,
    model: str | None,
    pairs: Path | None,
    backend: tuple[str, ...],
    max_drop: float | None,
    limit: int | None,
    seed: int | None,
    report: Path | None,
    details: bool | None,
    diagnose: bool,
    diagnose_output: Path | None,
    device: str | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
) -> int:
    """Check the engines of BUNDLE.

    Without --data the engine runs the golden inputs and must reproduce the outputs recorded at export. With --data it
    is also compared with the reference, image by image; an image that cannot be read is named and left out. With
    --unlabelled it is compared on images in random order, only on as many as prove --max-drop where that is given. With
    --compare the reference is the engine of another bundle, on the same backend. Exit status 1: an engine failed, or
    --max-drop is not proven.
    """
    if diagnose_output is not None and not diagnose:
        raise ConfigError("--diagnose-output is where --diagnose writes; add --diagnose.")
    if diagnose:
        refuse_unused(click.get_current_context())
        return run_diagnosis(
            bundle, backend, diagnose_output, cache_dir, require_signature, device=device, as_json=as_json
        )
    from ran_deploy.workflows.validate import ValidateConfig

    config = ValidateConfig(
        bundle=bundle,
        data=data,
        unlabelled=unlabelled,
        reference=reference,
        compare=compare,
        architecture=architecture,
        model=model,
        pairs=pairs,
        backends=backend,
        device=device,
        max_drop_pp=max_drop,
        limit=limit,
        seed=seed,
        cache_dir=cache_dir,
        require_signature=require_signature,
        details=report is not None if details is None else details,
    )
    return _validate(config, report, as_json=as_json, show_details=bool(details))


def _validate(config: ValidateConfig, report_path: Path | None, *, as_json: bool, show_details: bool) -> int:
    """Validate, print and write; return the exit status."""
    from ran_deploy.report.writing import check_report_path, write_report
    from ran_deploy.workflows.validate import validate_bundle

    if report_path is not None:
        check_report_path(report_path)
    counter = Counter()
    validation = validate_bundle(config, counter.line, counter)
    counter.clear()
    if as_json:
        write_json(validation.report)
        print_warnings(validation.report, err=True)
    else:
        print_report(validation.report, show_details=show_details)
    if report_path is not None:  # after what is printed: a full disk must not lose the result
        write_report(validation.report, report_path, validation.images, validation.attention)
        if not as_json:
            click.echo(f"report: {report_path}")
    if validation.report.passed:
        return 0
    if any(_loses(engine) for engine in validation.report.engines):
        counter.line("Which layers lose most: add --diagnose and leave the images out.")
    return 1


def _loses(engine: EngineReport) -> bool:
    """Tell an engine beyond the budget from one that more images, or better labels, might show to be within."""
    return not engine.passed and engine.images_needed is None and engine.warning is None and engine.agreement != 100


def print_report(report: ValidationReport, *, show_details: bool = False) -> None:
    """Print a paragraph for each engine, then what could not be read, warnings and verdict last."""
    if report.compared is not None:
        print_compared(report, report.compared)
    for engine in report.engines:
        print_engine(engine)
        if report.compared is not None:
            print_changes(engine)
    if show_details:
        print_details(report)
    print_certificate(report)
    for image in report.unreadable_images:
        click.echo(f"cannot be read: {printable(f'{image.file}: {image.reason}')}")
    if more := report.unreadable - len(report.unreadable_images):
        click.echo(f"cannot be read: {more:,} more")
    print_warnings(report, err=False)
    click.echo(report.verdict)


def print_warnings(report: ValidationReport, *, err: bool) -> None:
    for warning in report.warnings:
        click.echo(f"WARNING: {warning}", err=err)


def print_engine(engine: EngineReport) -> None:
    note = half_pixel_note("sample points" in engine.device)
    estimate = " (estimate: its graph emulated)" if engine.estimate else ""
    click.echo(f"{engine.backend} {engine.precision}{note}{estimate}")
    if engine.self_test is not None:
        click.echo(f"  {engine.self_test.summary}")
    if engine.embedding is not None:
        print_embedding(engine, engine.embedding)
    if engine.top1_engine is not None:
        click.echo(
            f"  top-1   {engine.top1_engine:.2f} % of {counted(engine.images, 'image')}, "
            f"reference {engine.top1_reference:.2f} %: {drop(engine)}"
        )
        click.echo(f"  top-5   {engine.top5_engine:.2f} %, reference {engine.top5_reference:.2f} %")
    if engine.logits is not None:
        changed = f"{engine.changed_images:,} " + ("image changes" if engine.changed_images == 1 else "images change")
        click.echo(f"  agreement {engine.agreement:.2f} % ({changed} class)")
        click.echo(f"  logits  {distances(engine.logits)}")
    if engine.attention is not None:
        print_attention(engine.attention)


def print_embedding(engine: EngineReport, figures: EmbeddingFigures) -> None:
    if figures.pairs is not None:
        pairs = figures.pairs
        click.echo(
            f"  same    {pairs.accuracy_engine:.2f} % of {counted(pairs.pairs, 'pair')} of images, "
            f"reference {pairs.accuracy_reference:.2f} %: {drop(engine)}"
        )
        for tar in pairs.tar:
            click.echo(f"  TAR     {tar.engine:.2f} % at FAR {tar.far:g} %, reference {tar.reference:.2f} %")
    cosine = figures.cosine
    click.echo(
        f"  cosine  mean {cosine.mean:.5f}, 5 % of images below {cosine.percentile_5:.5f}, "
        f"1 % below {cosine.percentile_1:.5f}, lowest {cosine.lowest:.5f}"
    )
    click.echo(f"  vectors {distances(figures.vectors)}")


def print_attention(figures: AttentionFigures) -> None:
    """Print a line for each module, of many the ones whose attention moved most."""
    click.echo(f"  attention of {counted(figures.images, 'image')}, against the FP32 graph's")
    modules = sorted(figures.modules, key=_mean_correlation)[:MOST_MODULES]
    for module in figures.modules:
        if module in modules:
            click.echo(f"    {printable(module.name)}  {fidelity(module)}")
    if more := len(figures.modules) - len(modules):
        click.echo(f"    {counted(more, 'more module')} with higher correlations")


def _mean_correlation(module: ModuleFidelity) -> float:
    return 2.0 if module.correlation_mean is None else module.correlation_mean


def fidelity(module: ModuleFidelity) -> str:
    parts = ["no correlation"]
    if module.correlation_mean is not None:
        parts = [f"correlation {module.correlation_mean:.4f} (lowest {module.correlation_worst:.4f})"]
    if module.flat:
        parts.append(f"{counted(module.flat, 'mask')} of one value left out")
    parts.append("relative L2 -" if module.relative_l2 is None else f"relative L2 {module.relative_l2:.4f}")
    if module.moved_mean is not None:
        parts.append(f"{module.moved_mean:.2f} % moved (most {module.moved_worst:.2f} %)")
    return ", ".join(parts)


def drop(engine: EngineReport) -> str:
    """Return how much accuracy is lost, and how sure that is."""
    low, high = engine.drop_ci95_pp or (0.0, 0.0)
    interval = f"95 % interval {low:+.2f} to {high:+.2f}"
    return f"drop {engine.drop_pp:+.2f} points, {interval} (McNemar p {engine.mcnemar_p:.2g})"


def distances(errors: LogitErrors) -> str:
    relative = "-" if errors.relative_l2 is None else f"{errors.relative_l2:.4f}"
    sqnr = "-" if errors.sqnr_db is None else f"{errors.sqnr_db:.1f} dB"
    return f"relative L2 {relative}, SQNR {sqnr}, cosine {errors.cosine:.5f}, max abs {errors.max_abs:.3f}"


def main() -> None:
    run_command(validate)
