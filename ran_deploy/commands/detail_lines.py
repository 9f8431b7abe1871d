"""What ran-validate prints of the layers, and of how fast and large engines are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ran_deploy.commands.printing import printable
from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.report.details_schema import EngineSize, EngineSpeed
    from ran_deploy.report.schema import ValidationReport
    from ran_deploy.verification.layer_errors import LayerError, LayerErrors

MOST_LAYERS = 5  # on a terminal
MEBIBYTE = 2**20


def print_details(report: ValidationReport) -> None:
    """Print the layers furthest from FP32, then a line for each engine and batch size, and for each engine's size."""
    if report.layers is not None:
        print_layers(report.layers)
    elif report.layers_missing is not None:
        click.echo(f"layers  {printable(report.layers_missing)}")
    for speed in report.speeds:
        click.echo(f"time    {speed_text(speed)}")
    for size in report.sizes:
        click.echo(f"size    {size_text(size)}")


def print_layers(errors: LayerErrors) -> None:
    worst = [errors.layers[index] for index in errors.worst[:MOST_LAYERS]]
    quantized = any(layer.input is not None for layer in errors.layers)
    click.echo(
        f"layers of the {errors.dialect} graph furthest from FP32, of {len(errors.layers)}, "
        f"on {counted(errors.images, 'image')}"
    )
    for layer in worst:
        click.echo(f"  {printable(layer.name)}  {layer_text(layer, quantized=quantized)}")


def layer_text(layer: LayerError, *, quantized: bool) -> str:
    """Return how far a layer is from FP32, and how its range fits; none is worth a word among `quantized` layers."""
    parts = [layer.branch]
    parts.append("not finite" if layer.relative_l2 is None else f"relative L2 {layer.relative_l2:.4f}")
    if layer.sqnr_db is not None:
        parts.append(f"SQNR {layer.sqnr_db:.1f} dB")
    if layer.input is not None:
        used, clipped = 100 * layer.input.used, 100 * layer.input.clipped
        parts.append(f"{used:.0f} % of the input's range used, {clipped:.3f} % cut off")
    elif quantized:
        parts.append("in float")
    return ", ".join(parts)


def speed_text(speed: EngineSpeed) -> str:
    text = f"{speed.backend}, batch {speed.batch}: {speed.median_ms:.2f} ms, median of {speed.runs}"
    if speed.fp32_ratio is not None:
        text += f"; {speed.fp32_ratio:.2f} of the FP32 graph's time on {speed.backend}"
    return text + ("; the machine is busy" if speed.noisy else "")


def size_text(size: EngineSize) -> str:
    named = (("engine", size.engine_bytes), ("graph", size.graph_bytes), ("FP32 graph", size.reference_bytes))
    parts = [f"{name} {count / MEBIBYTE:.1f} MiB" for name, count in named if count is not None]
    return f"{size.backend}: {', '.join(parts)}"
