"""ran-bench: latency and throughput of a bundle on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ran_deploy.commands.engine_lines import half_pixel_note
from ran_deploy.commands.options import (
    backend_option,
    cache_dir_option,
    device_option,
    require_signature_option,
    threads_option,
    verbose_option,
    version_option,
)
from ran_deploy.commands.printing import write_json
from ran_deploy.commands.profile_lines import print_profiles
from ran_deploy.commands.running import run_command

if TYPE_CHECKING:
    from ran_deploy.workflows.bench import BenchRow


@click.command(name="ran-bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(
    extra=("auto", "all"),
    multiple=True,
    default=["auto"],
    show_default=True,
    help="Engine to measure; repeatable. 'all' is each that can run here.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="N",
    help="Images in one run; repeatable.  [default: each of the engine's MIN:OPT:MAX]",
)
@click.option(
    "--seconds", type=float, default=3.0, show_default=True, metavar="S", help="Time spent on each batch size."
)
@click.option(
    "--warm-up",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Runs that do not count.",
)
@threads_option()
@click.option("--profile", is_flag=True, help="Where the time goes, by layer and by part of the network.")
@device_option()
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@verbose_option()
@version_option()
def bench(
    bundle: Path,
    backend: tuple[str, ...],
    batches: tuple[int, ...],
    seconds: float,
    warm_up: int,
    threads: int,
    profile: bool,
    device: str | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
) -> None:
    """Measure the engine of BUNDLE: prepared images in, outputs out."""
    from ran_deploy.workflows.bench import BenchConfig, bench_bundle

    config = BenchConfig(
        bundle=bundle,
        backends=backend,
        batches=batches,
        warm_up=warm_up,
        seconds=seconds,
        threads=threads,
        device=device,
        cache_dir=cache_dir,
        require_signature=require_signature,
    )
    if profile:
        from ran_deploy.workflows.profile import profile_bundle

        profiled = profile_bundle(config, say)
        write_json(profiled) if as_json else print_profiles(profiled.profiles)
        return
    result = bench_bundle(config, say)
    write_json(result) if as_json else print_rows(result.rows)


def say(line: str) -> None:
    """Tell what is being measured."""
    click.echo(line, err=True)


def print_rows(rows: Sequence[BenchRow]) -> None:
    """Print a table, and a warning if the machine was too busy to believe it."""
    columns = f"{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'images/s':>12}{'variation':>11}"
    click.echo(f"{'backend':<14}{'batch':>6}{columns}")
    for row in rows:
        latency = row.latency_ms
        click.echo(
            f"{row.backend:<14}{row.batch:>6}{latency.p50:>10.2f}{latency.p90:>10.2f}{latency.p99:>10.2f}"
            f"{row.images_per_second:>12.1f}{row.variation:>10.0%}{' !' if row.noisy else ''}"
        )
    for backend in dict.fromkeys(row.backend for row in rows if row.half_pixel):
        click.echo(f"{backend}{half_pixel_note(True)}: its outputs are not those of the network")
    if any(row.noisy for row in rows):
        click.echo("! other load or a throttled processor: compare only medians of interleaved runs", err=True)


def main() -> None:
    run_command(bench)
