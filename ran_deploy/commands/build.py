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
    triton_option,
    verbose_option,
    write_json,
)


@click.command(name="ran-build")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(required=True, help="Engine to build.")
@click.option("--batch", type=Batch(), help="Batch sizes the engine takes.  [default: those of the export]")
@triton_option()
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@verbose_option()
def build(
    bundle: Path,
    backend: str,
    batch: tuple[int, int, int] | None,
    triton: Path | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
) -> None:
    """Build the engine of BUNDLE for this device, prove it, and keep it in the cache; the bundle never changes."""
    from ran_deploy.bundle import open_bundle
    from ran_deploy.manifest import BatchProfile
    from ran_deploy.workflows.engines import build_engine
    from ran_deploy.workflows.triton import best_served, write_triton_model

    if triton is not None:
        best_served([backend])  # before minutes of building
    profile = BatchProfile(minimum=batch[0], optimum=batch[1], maximum=batch[2]) if batch else None
    opened = open_bundle(bundle, require_signature=require_signature)
    folder, self_test = build_engine(opened, backend, cache_dir=cache_dir, batch=profile)
    model = None
    if triton is not None:
        model = write_triton_model(opened, backend, triton, batch=profile, cache_dir=cache_dir)
    if as_json:
        outcome = {"backend": backend, "cache": str(folder), "self_test": self_test}
        write_json(outcome if model is None else {**outcome, "triton": str(model)})
        return
    click.echo(f"built the {backend} engine of {bundle} in {folder}")
    if self_test is not None:
        click.echo(f"  {self_test.summary}")
    else:
        click.echo("  self-test pending: the engine cannot run on this machine; it is proven when it is first loaded")
    if model is not None:
        click.echo(f"added to the Triton model repository: {model}")


def main() -> None:
    run_command(build)
