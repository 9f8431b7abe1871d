"""ran-export --list: the networks that have names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ran_deploy.commands.printing import write_json

if TYPE_CHECKING:
    from ran_deploy.models.design import Design, Stage
    from ran_deploy.models.summary import Summary

__all__ = ["print_architecture", "print_architectures"]

HEADER = ("name", "parameters", "multiply-adds", "depth", "input", "smallest", "source")


def print_architectures(*, as_json: bool) -> None:
    """Print a line for each network of the zoo."""
    from ran_deploy.models.summary import summarise
    from ran_deploy.models.zoo import ARCHITECTURES

    summaries = [summarise(name) for name in ARCHITECTURES]
    if as_json:
        write_json(summaries)
        return
    rows = [HEADER, *map(row_of, summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    for name, *numbers, source in rows:
        aligned = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        click.echo("  ".join([name.ljust(widths[0]), *aligned, source]))


def row_of(summary: Summary) -> tuple[str, ...]:
    return (
        summary.name,
        millions(summary.parameters),
        multiply_adds(summary.multiply_adds),
        str(summary.trunk_depth),
        "x".join(map(str, summary.input_size)),
        str(summary.smallest_side),
        summary.source,
    )


def print_architecture(name: str, *, as_json: bool) -> None:
    """Print one network of the zoo in detail. Raises: ConfigError for an unknown name."""
    from ran_deploy.models.summary import summarise

    summary = summarise(name)
    if as_json:
        write_json(summary)
        return
    for label, text in details(summary):
        click.echo(f"{label:<12}{text}")


def details(summary: Summary) -> list[tuple[str, str]]:
    """Return labels and what stands behind them."""
    design = summary.design
    height, width = summary.input_size
    return [
        (
            "network",
            f"{summary.name}: {millions(summary.parameters)} parameters, {multiply_adds(summary.multiply_adds)} "
            f"multiply-adds, trunk depth {summary.trunk_depth}",
        ),
        ("source", summary.source),
        ("input", f"{height}x{width}, no side below {summary.smallest_side}; {summary.num_classes} classes"),
        ("stem", f"{design.stem.value}, width {design.stem_width}"),
        *((f"stage {index}", stage_text(stage)) for index, stage in enumerate(design.stages, 1)),
        ("tail", f"{design.tail.value}, linear"),
        ("units", f"{design.unit.value}; p = {design.p}, t = {design.t}, r = {design.r}"),
        ("masks", mask_text(design)),
        ("learning", f"{design.learning.value}, {FORMULAS[design.learning.value]}"),
    ]


FORMULAS = {"residual": "(1 + M) T", "naive": "M T"}


def stage_text(stage: Stage) -> str:
    parts = [f"width {stage.width}", f"stride {stage.stride}"]
    if stage.modules:
        pools = f"mask depth {stage.mask_depth}" if stage.mask_depth else "masks without pools"
        parts.append(f"{stage.modules} attention module{'s' * (stage.modules > 1)}, {pools}")
    if stage.closing_units:
        parts.append(f"{stage.closing_units} closing unit{'s' * (stage.closing_units > 1)}")
    return ", ".join(parts)


def mask_text(design: Design) -> str:
    if any(stage.mask_depth for stage in design.stages):
        return f"{design.attention.value} attention; {design.pooling.value} pools, {design.join.value} joins"
    return f"{design.attention.value} attention; {design.bottom_units(design.stages[0])} units"


def millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def multiply_adds(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"
