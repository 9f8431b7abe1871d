"""ran-export: from a trained checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ran_deploy.commands.gpu_options import compatibility_options, gpu_options
from ran_deploy.commands.labels import read_labels
from ran_deploy.commands.options import (
    Batch,
    Size,
    Triple,
    backend_option,
    cache_dir_option,
    triton_option,
    verbose_option,
    version_option,
)
from ran_deploy.commands.printing import printable, write_json
from ran_deploy.commands.progress import Counter
from ran_deploy.commands.running import run_command
from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError
from ran_deploy.file_kind import require_checkpoint_file
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import ChannelOrder, Interpolation

if TYPE_CHECKING:
    from ran_deploy.budget_record import BudgetRecord
    from ran_deploy.workflows.export import ExportResult

FROM_RECIPE = "[default: the checkpoint's, else what is customary]"  # workflows/exporting/recipe.py says in which order


def choices(enum: Any) -> click.Choice[str]:
    return click.Choice([member.value for member in enum])


@click.command(name="ran-export")
@click.argument("checkpoint", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Bundle to write, NAME.ran.  [required]")
@click.option(
    "--precision", type=choices(Precision), default="int8", show_default=True, help="What the engines compute in."
)
@backend_option(multiple=True, help="Engine to build; repeatable.  [default: all that this machine can build]")
@click.option("--calibration-data", type=click.Path(path_type=Path), help="Typical images: folder, CIFAR, IDX or .npz.")
@click.option("--calibration-images", type=int, default=512, show_default=True, metavar="N", help="How many to use.")
@click.option(
    "--calibration",
    type=click.Choice(["auto", "minmax", "percentile", "entropy", "mse"]),
    help="How activation ranges are chosen; auto: tensor by tensor among the others, by what they do to layers.  "
    "[default: auto; with --max-drop the best]",
)
@click.option(
    "--calibration-table",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the ranges of a calibration.json, or of a bundle, made with this network and --calibration-data.",
)
@click.option("--max-drop", "max_drop_pp", type=float, metavar="PP", help="Points INT8 may lose; the rest stays float.")
@click.option(
    "--validation-data", type=click.Path(path_type=Path), help="Labelled images that --max-drop is judged on."
)
@click.option("--batch", type=Batch(), default="1:8:32", show_default=True, help="Batch sizes the engines take.")
@click.option("--input-size", type=Size(), help="Engine input, height x width.  [default: the checkpoint's]")
@click.option("--mean", type=Triple(), help=f"Per-channel mean of pixels in 0..1.  {FROM_RECIPE}")
@click.option("--std", type=Triple(), help=f"Per-channel standard deviation of pixels in 0..1.  {FROM_RECIPE}")
@click.option(
    "--resize", metavar="SIDE|HxW|none", help=f"Resize before the crop; one number is the shorter side.  {FROM_RECIPE}"
)
@click.option("--crop", type=Size(), help="Centre crop; the same as --input-size.")
@click.option(
    "--interpolation", type=choices(Interpolation), help=f"How pixels are interpolated on resizing.  {FROM_RECIPE}"
)
@click.option(
    "--antialias/--no-antialias",
    default=None,
    help=f"Smooth when shrinking, as torchvision and Pillow do.  {FROM_RECIPE}",
)
@click.option("--channel-order", type=choices(ChannelOrder), help=f"What the network was trained with.  {FROM_RECIPE}")
@click.option(
    "--task",
    type=click.Choice(["classification", "embedding"]),
    help="What the outputs are: logits or features.  [default: the layout's; with --model classification]",
)
@click.option("--labels", type=click.Path(path_type=Path), help="Class names: one a line, or JSON.")
@click.option("--architecture", metavar="NAME", help="What CHECKPOINT is, where its keys cannot tell; see --list.")
@click.option("--model", metavar="PACKAGE.MODULE:FACTORY", help="Build the network with this; its code is executed.")
@click.option("--golden", metavar="PATH|synthetic", help="Self-test inputs.  [default: calibration images]")
@click.option("--with-attention", is_flag=True, help="Put out the network's soft masks too, as small maps.")
@click.option("--pack", is_flag=True, help="Write one file, NAME.ran.zip.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle that stands at the output.")
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="PRIVATE.pem", help="Sign the bundle with this Ed25519 key."
)
@compatibility_options()
@triton_option()
@cache_dir_option()
@click.option("--json", "as_json", is_flag=True, help="Print the manifest, or the list, as JSON.")
@click.option("--list", "only_list", is_flag=True, help="Show the named networks, or --architecture's; export nothing.")
@verbose_option()
@version_option()
def export(
    checkpoint: Path | None,
    output: Path | None,
    triton: Path | None,
    as_json: bool,
    only_list: bool,
    **options: Any,
) -> None:
    """Convert a trained checkpoint into a bundle that runs anywhere.

    The layout of CHECKPOINT (.pt .pth .pkl .tar .safetensors) is recognised from its keys and shapes.
    """
    if only_list:
        list_architectures(checkpoint, options["architecture"], as_json=as_json)
        return
    if checkpoint is None:  # click cannot require what --list does without
        raise click.MissingParameter(param_hint="'CHECKPOINT'", param_type="argument")
    if output is None:
        raise click.MissingParameter(param_hint="'-o' / '--output'", param_type="option")
    config = config_from_options(checkpoint, output, **options)
    from ran_deploy.workflows.export import export_bundle
    from ran_deploy.workflows.triton import best_served, write_triton_model

    if triton is not None and options["backend"]:
        best_served(options["backend"])  # before minutes of exporting
    counter = Counter()
    result = export_bundle(config, lambda line: counter.line(line, err=as_json), counter)
    counter.clear()
    if as_json:
        write_json(result.bundle.manifest)
    else:
        print_result(result)
    if triton is not None:
        best = best_served(engine.backend for engine in result.engines if engine.record is not None)
        model = write_triton_model(result.bundle, best, triton, cache_dir=options["cache_dir"])
        click.echo(f"added the {best} engine to the Triton model repository: {model}", err=as_json)


def list_architectures(checkpoint: Path | None, architecture: str | None, *, as_json: bool) -> None:
    """Print the zoo, or one network of it. Raises: UsageError with a checkpoint, which it would not read."""
    from ran_deploy.commands.architectures import print_architecture, print_architectures

    if checkpoint is not None:
        raise click.UsageError(f"--list shows the named networks and reads no checkpoint; leave out {checkpoint}")
    if architecture is None:
        print_architectures(as_json=as_json)
    else:
        print_architecture(architecture, as_json=as_json)


def config_from_options(
    checkpoint: Path,
    output: Path,
    *,
    precision: str,
    backend: tuple[str, ...],
    calibration: str | None,
    calibration_table: Path | None,
    batch: tuple[int, int, int],
    input_size: tuple[int, int] | None,
    crop: tuple[int, int] | None,
    resize: str | None,
    labels: Path | None,
    task: str | None,
    pack: bool,
    hardware_compatible: str | None,
    version_compatible: bool,
    **options: Any,
) -> Any:
    """Return the ExportConfig. Raises: CheckpointError without a file, ConfigError for values that do not fit."""
    require_checkpoint_file(checkpoint)  # a slip in its name matters more than what else is missing
    if crop and input_size and crop != input_size:
        sizes = [f"{height}x{width}" for height, width in (crop, input_size)]
        raise ConfigError(f"--crop {sizes[0]} and --input-size {sizes[1]} differ; they are the same thing, give one.")
    if calibration is not None and calibration_table is not None:
        raise ConfigError("--calibration says how to calibrate, --calibration-table replaces it; give one of them.")
    from ran_deploy.calibration import CalibrationMethod
    from ran_deploy.manifest import BatchProfile, Task
    from ran_deploy.workflows.export import ExportConfig
    from ran_deploy.workflows.exporting.recipe import RecipeOptions

    recipe = RecipeOptions(
        resize=parse_resize(resize),
        interpolation=Interpolation(value) if (value := options.pop("interpolation")) else None,
        channel_order=ChannelOrder(value) if (value := options.pop("channel_order")) else None,
        antialias=options.pop("antialias"),
        mean=options.pop("mean"),
        std=options.pop("std"),
    )
    if pack and output.suffix != ".zip":
        output = output.with_name(output.name + ".zip")
    return ExportConfig(
        checkpoint=checkpoint,
        output=output,
        precision=Precision(precision),
        backends=backend or None,
        calibration_method=CalibrationMethod(calibration) if calibration else None,
        calibration_table=calibration_table,
        batch=BatchProfile(minimum=batch[0], optimum=batch[1], maximum=batch[2]),
        input_size=input_size or crop,
        recipe=recipe,
        labels=read_labels(labels) if labels else None,
        task=Task(task) if task else None,
        pack=pack,
        gpu=gpu_options(hardware_compatible=hardware_compatible, version_compatible=version_compatible),
        **options,
    )


def parse_resize(value: str | None) -> int | tuple[int, int] | str | None:
    """Return the shorter side, (height, width), 'none', or None for no choice. Raises: ConfigError."""
    if value is None or value == "none":
        return value
    parts = value.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--resize is {value!r}; expected a side such as 256, a size such as 256x320, or none.")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def print_result(result: ExportResult) -> None:
    """Say what stands where and how each engine does."""
    bundle = result.bundle
    size = sum(record.size_bytes for record in bundle.manifest.files.values())
    click.echo(f"wrote {bundle.path} ({size / 2**20:.1f} MiB, {bundle.manifest.precision.value})")
    if bundle.manifest.budget is not None:
        print_budget(bundle.manifest.budget)
    for engine in result.engines:
        if engine.self_test is not None:
            click.echo(f"  {engine.backend}: built, {engine.self_test.summary}")
        elif engine.record is not None:
            click.echo(f"  {engine.backend}: built, self-test pending until it runs on a device ({engine.reason})")
        else:
            click.echo(f"  {engine.backend}: not built here ({engine.reason})")


def print_budget(budget: BudgetRecord) -> None:
    """Say what stays in float and what each dialect loses."""
    kept = [region for region in budget.regions if region.kept_in_float]
    share = f"{len(kept)} of {counted(len(budget.regions), 'region')}, {100 * budget.float_multiply_adds:.1f} %"
    click.echo(f"  kept in float: {f'{share} of multiply-adds' if kept else 'nothing'}")
    for region in kept:
        click.echo(f"    {printable(region.name)} ({100 * region.multiply_adds:.1f} % of multiply-adds)")
    for drop in budget.drops:
        click.echo(
            f"  {drop.dialect}: {budget.measure} drop {drop.drop_pp:+.2f} points, at most {drop.bound_pp:+.2f} of "
            f"{budget.max_drop_pp:g}"
        )


def main() -> None:
    run_command(export)
