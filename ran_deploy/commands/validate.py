"""ran-validate: does the engine compute what the network computes, and how accurate is it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ran_deploy.commands.common import (
    backend_option,
    cache_dir_option,
    printable,
    require_signature_option,
    run_command,
    verbose_option,
    write_json,
)
from ran_deploy.commands.progress import Counter
from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.report.schema import EngineReport, ValidationReport
    from ran_deploy.workflows.validate import ValidateConfig


@click.command(name="ran-validate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Labelled images: folder by class, CIFAR, IDX or .npz.")
@click.option("--reference", type=click.Path(path_type=Path), help="Checkpoint.  [default: the bundle's FP32 graph]")
@click.option("--architecture", metavar="NAME", help="What --reference is, where its keys cannot tell.")
@click.option("--model", metavar="PACKAGE.MODULE:FACTORY", help="Builds the network of --reference; is executed.")
@backend_option(
    extra=("auto", "all"),
    multiple=True,
    default=["auto"],
    show_default=True,
    help="Engine to check; repeatable. With 'all', engines that cannot run here are estimated by emulation.",
)
@click.option("--max-drop", type=float, metavar="PP", help="Fail unless top-1 provably drops by at most PP points.")
@click.option("--limit", type=int, metavar="N", help="Use N images only, balanced over classes.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report to FILE.html or FILE.json.")
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@verbose_option()
def validate(
    bundle: Path,
    data: Path | None,
    reference: Path | None,
    architecture: str | None,
    model: str | None,
    backend: tuple[str, ...],
    max_drop: float | None,
    limit: int | None,
    report: Path | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
) -> int:
    """Check the engines of BUNDLE.

    Without --data the engine runs the golden inputs and must reproduce the logits recorded at export. With --data it is
    also compared with the reference, image by image; an image that cannot be read is named and left out. Exit status 1:
    an engine failed, or --max-drop is not proven.
    """
    from ran_deploy.workflows.validate import ValidateConfig

    config = ValidateConfig(
        bundle=bundle,
        data=data,
        reference=reference,
        architecture=architecture,
        model=model,
        backends=backend,
        max_drop_pp=max_drop,
        limit=limit,
        cache_dir=cache_dir,
        require_signature=require_signature,
    )
    return _validate(config, report, as_json=as_json)


def _validate(config: ValidateConfig, report_path: Path | None, *, as_json: bool) -> int:
    """Validate, print and write; return the exit status."""
    from ran_deploy.report.writing import check_report_path, write_report
    from ran_deploy.workflows.validate import validate_bundle

    if report_path is not None:
        check_report_path(report_path)
    counter = Counter()
    validation = validate_bundle(config, counter.line, counter)
    counter.clear()
    if report_path is not None:
        write_report(validation.report, report_path, validation.images)
    if as_json:
        write_json(validation.report)
        print_warnings(validation.report, err=True)
    else:
        print_report(validation.report)
        if report_path is not None:
            click.echo(f"report: {report_path}")
    return 0 if validation.report.passed else 1


def print_report(report: ValidationReport) -> None:
    """Print a paragraph for each engine, then what could not be read, warnings and verdict last."""
    for engine in report.engines:
        print_engine(engine)
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
    click.echo(f"{engine.backend} {engine.precision}" + (" (estimate: its graph emulated)" if engine.estimate else ""))
    if engine.self_test is not None:
        click.echo(f"  {engine.self_test.summary}")
    if engine.top1_engine is not None and engine.drop_ci95_pp is not None:
        low, high = engine.drop_ci95_pp
        click.echo(
            f"  top-1   {engine.top1_engine:.2f} % of {counted(engine.images, 'image')}, "
            f"reference {engine.top1_reference:.2f} %: drop {engine.drop_pp:+.2f} points, "
            f"95 % interval {low:+.2f} to {high:+.2f} (McNemar p {engine.mcnemar_p:.2g})"
        )
        click.echo(f"  top-5   {engine.top5_engine:.2f} %, reference {engine.top5_reference:.2f} %")
    if engine.logits is not None:
        errors = engine.logits
        relative = "-" if errors.relative_l2 is None else f"{errors.relative_l2:.4f}"
        sqnr = "-" if errors.sqnr_db is None else f"{errors.sqnr_db:.1f} dB"
        changed = f"{engine.changed_images:,} " + ("image changes" if engine.changed_images == 1 else "images change")
        click.echo(f"  agreement {engine.agreement:.2f} % ({changed} class)")
        click.echo(
            f"  logits  relative L2 {relative}, SQNR {sqnr}, cosine {errors.cosine:.5f}, max abs {errors.max_abs:.3f}"
        )


def main() -> None:
    run_command(validate)
