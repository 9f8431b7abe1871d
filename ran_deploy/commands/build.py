"""ran-build: the engine for this very device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ran_deploy.commands.engine_lines import dla_lines, engine_lines, half_pixel_note, padding_line
from ran_deploy.commands.gpu_options import gpu_build_options, gpu_options
from ran_deploy.commands.options import (
    Batch,
    backend_option,
    cache_dir_option,
    device_option,
    require_signature_option,
    triton_option,
    verbose_option,
    version_option,
)
from ran_deploy.commands.printing import printable, write_json
from ran_deploy.commands.progress import Counter
from ran_deploy.commands.running import run_command
from ran_deploy.errors import ConfigError

if TYPE_CHECKING:
    from ran_deploy.manifest import BatchProfile
    from ran_deploy.workflows.engines.building import BuiltEngine


@click.command(name="ran-build")
@click.argument("bundle", type=click.Path(path_type=Path))
@backend_option(required=True, help="Engine to build.")
@click.option("--batch", type=Batch(), help="Batch sizes the engine takes.  [default: those of the export]")
@gpu_build_options()
@click.option(
    "--pad-batches",
    is_flag=True,
    help="TensorRT: time which batches run faster padded to a CUDA graph's size, and pad those at every load.",
)
@triton_option()
@click.option(
    "--trtexec",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Build nothing: write what trtexec of TensorRT 8.5 or 8.6 (JetPack 5) builds and checks the engine from.",
)
@device_option()
@cache_dir_option()
@require_signature_option()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@verbose_option()
@version_option()
def build(
    bundle: Path,
    backend: str,
    batch: tuple[int, int, int] | None,
    pad_batches: bool,
    triton: Path | None,
    trtexec: Path | None,
    device: str | None,
    cache_dir: Path | None,
    require_signature: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Build the engine of BUNDLE for this device, prove it, and keep it in the cache; the bundle never changes."""
    from ran_deploy.manifest import BatchProfile
    from ran_deploy.workflows.build import BuildConfig, build_for_device

    profile = BatchProfile(minimum=batch[0], optimum=batch[1], maximum=batch[2]) if batch else None
    if trtexec is not None:
        refuse_beside_trtexec(backend, pad_batches=pad_batches, triton=triton, device=device, **options)
        write_recipe(bundle, trtexec, profile, options["workspace"], require_signature, as_json=as_json)
        return
    config = BuildConfig(
        bundle=bundle,
        backend=backend,
        batch=profile,
        gpu=gpu_options(**options),
        pad_batches=pad_batches,
        device=device,
        triton=triton,
        cache_dir=cache_dir,
        require_signature=require_signature,
    )
    counter = Counter()
    result = build_for_device(config, counter.share)
    counter.clear()
    built, model = result.engine, result.triton_model
    if as_json:
        write_json(outcome(backend, built, model))
        return
    note = half_pixel_note(built.half_pixel)
    click.echo(f"built the {backend} engine of {bundle} in {built.folder}{note}")
    for line in built_lines(built):
        click.echo(f"  {printable(line)}")
    if model is not None:
        click.echo(f"added to the Triton model repository: {model}")


def outcome(backend: str, built: BuiltEngine, model: Path | None) -> dict[str, Any]:
    """Return what --json prints; `model` is where the engine is in a Triton model repository."""
    found: dict[str, Any] = {
        "backend": backend,
        "cache": str(built.folder),
        "self_test": built.self_test,
        "layers": built.layers,
        "engine_bytes": built.engine_bytes,
        "half_pixel": built.half_pixel,
    }
    if built.graph_bytes is not None:
        found["weights_from_graph_bytes"] = built.graph_bytes
    if built.dla is not None:
        found["dla"] = built.dla
    if built.padding is not None:
        found |= {"padding": built.padding.padding, "padding_trials": built.padding.trials}
    return found if model is None else {**found, "triton": str(model)}


def built_lines(built: BuiltEngine) -> list[str]:
    """Return the outcome of the self-test and, where they are known, what the engine consists of and what DLA takes."""
    pending = "self-test pending: the engine cannot run on this machine; it is proven when it is first loaded"
    lines = [pending if built.self_test is None else built.self_test.summary]
    if built.graph_bytes is not None:
        engine, graph = (size / 1e6 for size in (built.engine_bytes, built.graph_bytes))
        lines.append(f"without weights: {engine:.1f} MB; the bundle's graph of {graph:.1f} MB gives them at each load")
    if built.padding is not None:
        lines.append(padding_line(built.padding.padding))
    if built.layers is not None:
        lines += engine_lines(built.layers)
    if built.dla is not None:
        lines += dla_lines(built.dla)
    return lines


def refuse_beside_trtexec(backend: str, *, workspace: int | None, **asked: Any) -> None:
    """Raise ConfigError for what has no meaning where trtexec builds."""
    del workspace  # the one it has
    if backend != "tensorrt":
        raise ConfigError(f"--trtexec is TensorRT's own builder; choose --backend tensorrt, not {backend}.")
    given = [name for name, value in asked.items() if value not in (None, (), False)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--trtexec builds nothing here: leave {options} out.")


def write_recipe(
    bundle: Path,
    folder: Path,
    batch: BatchProfile | None,
    workspace_mib: int | None,
    require_signature: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write the recipe for trtexec and say what to do with it."""
    from ran_deploy.bundle import open_bundle
    from ran_deploy.workflows.trtexec import WORKSPACE_MIB, write_trtexec_recipe

    opened = open_bundle(bundle, require_signature=require_signature)
    write_trtexec_recipe(opened, folder, batch=batch, workspace_mib=workspace_mib or WORKSPACE_MIB)
    if as_json:
        write_json({"backend": "tensorrt", "trtexec": str(folder)})
        return
    click.echo(f"wrote {folder} for trtexec of TensorRT 8.5 or 8.6")
    click.echo(f"  next, on the device: sh {folder.name}/build.sh, which builds the engine and checks it")


def main() -> None:
    run_command(build)
