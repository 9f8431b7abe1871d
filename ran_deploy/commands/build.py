"""ran-build: the engine for this very device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from ran_deploy.commands.progress import Counter

if TYPE_CHECKING:
    from ran_deploy.converters.builders import GpuOptions


@click.command(name="ran-build")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(required=True, help="Engine to build.")
@click.option("--batch", type=Batch(), help="Batch sizes the engine takes.  [default: those of the export]")
@click.option(
    "--workspace", type=click.IntRange(min=1), metavar="MIB", help="TensorRT: scratch memory.  [default: 1024]"
)
@click.option("--optimization-level", type=click.IntRange(0, 5), help="TensorRT: 0 builds quickest, 5 runs quickest.")
@click.option(
    "--compute-capability",
    multiple=True,
    metavar="X.Y",
    help="TensorRT-RTX: GPUs the engine is for, such as 8.9; repeatable.  [default: 8.0 and later]",
)
@triton_option()
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@verbose_option()
def build(
    bundle: Path,
    backend: str,
    batch: tuple[int, int, int] | None,
    workspace: int | None,
    optimization_level: int | None,
    compute_capability: tuple[str, ...],
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
    gpu = gpu_options(workspace, optimization_level, compute_capability)
    counter = Counter()
    folder, self_test = build_engine(
        opened, backend, cache_dir=cache_dir, batch=profile, gpu=gpu, progress=counter.share
    )
    counter.clear()
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


def gpu_options(
    workspace_mib: int | None, optimization_level: int | None, compute_capabilities: tuple[str, ...]
) -> GpuOptions | None:
    """Return what the builder of a GPU engine is told; None where nothing was asked for."""
    from ran_deploy.converters.builders import GpuOptions

    asked: dict[str, Any] = {}
    if workspace_mib is not None:
        asked["workspace_bytes"] = workspace_mib * 2**20
    if optimization_level is not None:
        asked["optimization_level"] = optimization_level
    if compute_capabilities:
        asked["compute_capabilities"] = compute_capabilities
    return GpuOptions(**asked) if asked else None


def main() -> None:
    run_command(build)
