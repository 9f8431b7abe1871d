"""Two bundles compared, as lines: what they differ in, which classes flip between them, and on which images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ran_deploy.commands.printing import printable
from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.report.schema import BundleComparison, EngineReport, ValidationReport

__all__ = ["print_changes", "print_compared"]

MOST_LINES = 5  # of classes and images; the report has more


def print_compared(report: ValidationReport, compared: BundleComparison) -> None:
    """Print which bundle is compared with which, and what they differ in."""
    click.echo(f"{printable(report.bundle.name)}, compared with {printable(compared.bundle.name)} as the reference")
    width = max((len(difference.what) for difference in compared.differences), default=0)
    for difference in compared.differences:
        change = printable(f"{difference.reference} -> {difference.bundle}")
        click.echo(f"  {printable(difference.what):<{width}}  {change}")
    if not compared.differences:
        click.echo("  nothing differs: it is the same bundle, or the same export")


def print_changes(engine: EngineReport) -> None:
    """Print the most frequent changes of class, and the images on which the reference was surest of another one."""
    for flip in engine.flips[:MOST_LINES]:
        click.echo(
            f"  flips   {printable(flip.reference)} -> {printable(flip.engine)}: {counted(flip.images, 'image')}"
        )
    if (more := len(engine.flips) - MOST_LINES) > 0:
        click.echo(f"  flips   {counted(more, 'more pair')} of classes")
    for image in engine.changed[:MOST_LINES]:
        label = "" if image.label is None else f", label {printable(image.label)}"
        click.echo(
            f"  image   {printable(image.file or str(image.index))}: {printable(image.reference)} "
            f"{100 * image.reference_confidence:.1f} % -> {printable(image.engine)} "
            f"{100 * image.engine_confidence:.1f} %{label}"
        )
    if (more := engine.changed_images - min(len(engine.changed), MOST_LINES)) > 0:
        click.echo(f"  image   {more:,} more")
