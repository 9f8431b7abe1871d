"""What ran-bench --profile prints: where an engine's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from ran_deploy.commands.printing import printable
from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.workflows.profile import EngineProfile, Layer, ModuleTotal, PartTotal

__all__ = ["print_profiles"]

MOST_LAYERS = 10  # on a terminal
PART_COLUMNS = f"{'part of the network':<22}{'ms':>10}{'share':>8}{'multiply-adds':>16}{'layers':>8}"


def print_profiles(profiles: Sequence[EngineProfile]) -> None:
    """Print the parts of the network, the attention modules and the longest layers of each engine."""
    for index, profile in enumerate(profiles):
        click.echo(("\n" if index else "") + "\n".join(profile_lines(profile)))
    if any(profile.noisy for profile in profiles):
        click.echo("! other load or a throttled processor: believe shares only that come again", err=True)


def profile_lines(profile: EngineProfile) -> list[str]:
    unprofiled, profiled = profile.unprofiled_ms.p50, profile.profiled_ms.p50
    lines = [
        f"{profile.backend}, batch {profile.batch}: {unprofiled:.2f} ms; with profiling {profiled:.2f} ms "
        f"({profiled / unprofiled - 1:+.0%}), medians",
        f"{counted(len(profile.layers), 'layer')} take {profile.layers_ms:.2f} of {profiled:.2f} ms with profiling, "
        f"each the {profile.statistic} of {counted(profile.runs, 'run')}",
    ]
    if profile.layers_ms > unprofiled:
        lines.append("together longer than a run without the profiler: short layers weigh too much here")
    if profile.parts_missing is not None:
        lines.append(f"no parts of the network: {printable(profile.parts_missing)}")
    if profile.parts:
        lines += ["", PART_COLUMNS, *map(part_line, profile.parts)]
    if profile.modules:
        columns = "".join(f"{name:>11}" for name in ("trunk", "soft mask", "gate", "units"))
        lines += ["", f"{'attention module, ms':<22}{columns}", *map(module_line, profile.modules)]
    longest = sorted(profile.layers, key=lambda layer: -layer.ms)[:MOST_LAYERS]
    lines += ["", f"{'longest layers, ms':>22}{'share':>8}"]
    return lines + [layer_line(layer, profile.layers_ms) for layer in longest]


def part_line(total: PartTotal) -> str:
    arithmetic = f"{total.multiply_adds_share:>16.1%}" if total.multiply_adds_share else " " * 16
    return f"{total.part.value:<22}{total.ms:>10.3f}{total.share:>8.1%}{arithmetic}{total.layers:>8}"


def module_line(total: ModuleTotal) -> str:
    parts = (total.trunk_ms, total.mask_ms, total.gate_ms, total.units_ms)
    return f"{printable(total.module):<22}" + "".join(f"{ms:>11.3f}" for ms in parts)


def layer_line(layer: Layer, whole_ms: float) -> str:
    """Return a line that names a layer as the network does, or as the vendor does where that is unknown."""
    share = layer.ms / whole_ms if whole_ms else 0.0
    words = [layer.kind, layer.path or layer.name, layer.part.value if layer.part else "", layer.execution]
    return f"{layer.ms:>22.3f}{share:>8.1%}  " + printable("  ".join(word for word in words if word))
