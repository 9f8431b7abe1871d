"""ran-build: the engine for this very device."""

from __future__ import annotations

from pathlib import Path

import click

from ran_deploy.commands.common import (
    Batch,
    backend_option,
    cache_dir_option,
    require_signature_option,
    run_command,
    verbose_option,
    write_json,
)


@click.command(name="ran-build")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(required=True, help="Engine to build.")
@click.option("--batch", type=Batch(), help="Batch sizes the engine takes.  [default: those of the export]")
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@verbose_option()
def build(
    bundle: Path,
    backend: str,
    batch: tuple[int, int, int] | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
) -> None:
    """Build the engine of BUNDLE for this device, prove it, and keep it in the cache; the bundle never changes."""
    from ran_deploy.bundle import open_bundle
    from ran_deploy.manifest import BatchProfile
    from ran_deploy.workflows.engines import build_engine

    profile = BatchProfile(minimum=batch[0], optimum=batch[1], maximum=batch[2]) if batch else None
    opened = open_bundle(bundle, require_signature=require_signature)
    folder, self_test = build_engine(opened, backend, cache_dir=cache_dir, batch=profile)
    if as_json:
        write_json({"backend": backend, "cache": str(folder), "self_test": self_test})
        return
    click.echo(f"built the {backend} engine of {bundle} in {folder}")
    if self_test is not None:
        click.echo(f"  {self_test.summary}")
    else:
        click.echo("  self-test pending: the engine cannot run on this machine; it is proven when it is first loaded")


def main() -> None:
    run_command(build)
