"""What each way to make INT8 better gains, alone and together, on the same checkpoints and images: docs/int8.md.

    python benchmarks/int8_ablation.py CHECKPOINT... --calibration-data PATH --data PATH

CHECKPOINT are networks of known layout, hard ones of benchmarks/hard_checkpoint.py among them. Prints a Markdown table
for each; everything is compared with the float graph in OpenVINO. TensorRT's dialect is emulated, which is slow: it
sees --emulated images. Only `equalised` is in the product; the others are here so that what docs/int8.md says of them
can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import click
import numpy as np
import onnx_ir as ir
from calibration_methods import open_int8, outputs_of

from ran_deploy.calibration import CalibrationMethod, RangesByImages, collect_channel_sizes
from ran_deploy.converters import equalization_factors
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.graph import add_constant, array_of, model_bytes, module_of, require_array
from ran_deploy.converters.quantize import (
    data_name,
    find_quantized_tensors,
    find_weighted_nodes,
    insert_qdq,
    quantize,
    symmetric_scale,
    weight_axis,
    with_outputs,
)
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.models import load_checkpoint
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.verification.metrics import agreeing, error_sums, logit_errors, top_k_correct
from ran_deploy.verification.statistics import tango_interval
from ran_deploy.workflows.evaluation.reference import reference_graph
from ran_deploy.workflows.exporting.quantization import (
    CalibrationImages,
    calibration_images,
    equalized,
    measured_ranges,
    quantized,
)

MOMENT_IMAGES = 64  # of the calibration images, for the means of channels
RATIOS = np.linspace(1, 0.7, 31)  # of the largest weight, that a searched scale may reach


@dataclass(frozen=True)
class Float:
    """A float graph, its calibration, and the moments of the channels of each quantised tensor."""

    graph: ir.Model
    measured: RangesByImages
    ranges: dict[str, float]
    means: dict[str, np.ndarray]
    squares: dict[str, np.ndarray]

    def int8(self, ranges: Mapping[str, float] | None = None) -> ir.Model:
        artifact = self.graph.clone()
        insert_qdq(artifact, self.ranges if ranges is None else ranges)
        return artifact


def prepared_float(graph: ir.Model, images: CalibrationImages) -> Float:
    measured = measured_ranges(graph, images)
    ranges = quantized(graph, images, CalibrationMethod.AUTO, measured=measured).table.ranges
    names = find_quantized_tensors(graph)
    runner = open_reference(model_bytes(with_outputs(graph, names)))
    sums: dict[str, np.ndarray] = {}

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        outputs = runner.infer({INPUT: batch})
        found = {name: outputs[name] for name in names}
        for name, array in found.items():
            sums[name] = sums.get(name, 0) + array.mean(axis=tuple(range(2, array.ndim)), dtype=np.float64).sum(axis=0)
        return found

    chosen = images.prepared[:MOMENT_IMAGES]
    sizes = collect_channel_sizes(run, [chosen])
    runner.close()
    means = {name: total / len(chosen) for name, total in sums.items()}
    return Float(graph, measured, ranges, means, {name: found.mean_square for name, found in sizes.items()})


def mask_ranges(base: Float, method: CalibrationMethod) -> dict[str, float]:
    """Return the ranges with those of what mask branches read by a method of their own."""
    final = base.measured[max(base.measured)][method]
    in_masks = {
        data_name(node) for node in find_weighted_nodes(base.graph.graph) if "mask" in module_of(node).split(".")
    }
    return {name: final[name] if name in in_masks else limit for name, limit in base.ranges.items()}


def search_weight_scales(artifact: ir.Model, base: Float, *, weighted: bool) -> ir.Model:
    """Give each output channel the scale of least squared weight error, weighted by the mean squares of the inputs."""
    for node in find_weighted_nodes(base.graph.graph):
        weight, axis = require_array(node.inputs[1]), weight_axis(node)
        power = base.squares[data_name(node)] if weighted else np.ones(len(base.squares[data_name(node)]))
        stored, scale = least_error(np.moveaxis(weight, axis, 0), power)
        dequantize = stored_weight(artifact, node)
        assert node.inputs[1] is not None
        name = f"{node.inputs[1].name}_searched"
        dequantize.replace_input_with(0, add_constant(artifact.graph, name, np.moveaxis(stored, 0, axis)))
        dequantize.replace_input_with(1, add_constant(artifact.graph, f"{name}_scale", scale))
    return artifact


def least_error(weight: np.ndarray, power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and scales; shapes: weight (O, I, ...), power (C,) where I = C, 1 or a multiple of C."""
    widest = symmetric_scale(weight, 0)
    if weight.shape[1] % len(power):  # grouped
        power = np.ones(weight.shape[1])
    by_input = np.repeat(power, weight.shape[1] // len(power)).reshape(1, -1, *[1] * (weight.ndim - 2))
    errors, candidates = [], []
    for ratio in RATIOS:
        scale = (widest * ratio).astype(np.float32)
        stored = quantize(weight, scale, 0)
        error = weight - stored * scale.reshape(-1, *[1] * (weight.ndim - 1))
        errors.append((error.astype(np.float64) ** 2 * by_input).reshape(len(weight), -1).sum(axis=1))
        candidates.append((stored, scale))
    best, rows = np.argmin(errors, axis=0), np.arange(len(weight))
    return (
        np.stack([stored for stored, _ in candidates])[best, rows],
        np.stack([scale for _, scale in candidates])[best, rows],
    )


def stored_weight(artifact: ir.Model, node: ir.Node) -> ir.Node:
    """Return the DequantizeLinear of the weights of the artifact's twin of a node."""
    twin = next(other for other in artifact.graph if other.name == node.name)
    assert twin.inputs[1] is not None
    dequantize = twin.inputs[1].producer()
    assert dequantize is not None
    return dequantize


def correct_biases(artifact: ir.Model, base: Float) -> ir.Model:
    """Add to each bias what rounded weights take from the mean output, sum of (w - q(w)) E[x].

    Source: Nagel et al. 2019, arXiv:1906.04721, section 4.2.
    """
    for node in find_weighted_nodes(base.graph.graph):
        mean = base.means[data_name(node)]
        axis, weight = weight_axis(node), require_array(node.inputs[1])
        dequantize = stored_weight(artifact, node)
        scale = require_array(dequantize.inputs[1])
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        lost = np.moveaxis(weight - require_array(dequantize.inputs[0]) * scale.reshape(shape), axis, 0)
        if node.op_type == "MatMul" or lost.shape[1] % len(mean):  # no bias; grouped
            continue
        by_input = lost.reshape(len(lost), len(mean), -1).sum(axis=2) @ mean
        twin = next(other for other in artifact.graph if other.name == node.name)
        bias = array_of(twin.inputs[2]) if len(twin.inputs) > 2 else None
        twin.resize_inputs(3)
        corrected = (by_input + (0 if bias is None else bias)).astype(np.float32)
        twin.replace_input_with(2, add_constant(artifact.graph, f"{node.name}_corrected", corrected))
    return artifact


def variants(graph: ir.Model, images: CalibrationImages) -> Mapping[str, Callable[[], ir.Model]]:
    """Return what makes the INT8 graph of each row; equalised ones share one calibration."""
    plain, best = prepared_float(graph, images), prepared_float(equalized(graph, images)[0], images)
    masks = mask_ranges(best, CalibrationMethod.MSE)

    def freely() -> ir.Model:
        with mock.patch.object(equalization_factors, "power_of_two", lambda x: x):
            free, _ = equalized(graph, images)
        return quantized(free, images, CalibrationMethod.AUTO).model

    return {
        "nothing": plain.int8,
        "bias correction alone": lambda: correct_biases(plain.int8(), plain),
        "weight scales alone": lambda: search_weight_scales(plain.int8(), plain, weighted=False),
        "mask ranges alone (mse)": lambda: plain.int8(mask_ranges(plain, CalibrationMethod.MSE)),
        "equalised": best.int8,
        "equalised, any factors": freely,
        "equalised, bias correction": lambda: correct_biases(best.int8(), best),
        "equalised, weight scales": lambda: search_weight_scales(best.int8(), best, weighted=False),
        "equalised, weight scales by input power": lambda: search_weight_scales(best.int8(), best, weighted=True),
        "equalised, mask ranges (mse)": lambda: best.int8(masks),
        "equalised, mask ranges (percentile)": lambda: best.int8(mask_ranges(best, CalibrationMethod.PERCENTILE)),
        "all": lambda: correct_biases(search_weight_scales(best.int8(masks), best, weighted=True), best),
    }


def cells(expected: np.ndarray, found: np.ndarray, labels: np.ndarray) -> str:
    """Return relative L2, SQNR, agreement and the drop in points with its 95 % interval."""
    errors = logit_errors(error_sums(expected, found))
    before, after = top_k_correct(expected, labels, 1), top_k_correct(found, labels, 1)
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = (100 * bound for bound in tango_interval(lost, gained, len(labels)))
    drop = f"{100 * (lost - gained) / len(labels):+.2f}, {low:+.2f} to {high:+.2f}"
    agreement = 100 * agreeing(expected, found).mean()
    return f"{errors.relative_l2:.4f}, {errors.sqnr_db:.1f} dB, {agreement:.2f} %, {drop}"


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--calibration-data", type=click.Path(path_type=Path), required=True)
@click.option("--calibration-images", "count", type=int, default=512, show_default=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Labelled test images.")
@click.option("--images", type=int, default=10000, show_default=True, help="Test images, the first ones.")
@click.option("--emulated", type=int, default=1000, show_default=True, help="Of them for TensorRT's dialect; 0: none.")
@click.option("--only", multiple=True, help="Rows to print; default all.")
def main(
    checkpoints: tuple[Path, ...],
    calibration_data: Path,
    count: int,
    data: Path,
    images: int,
    emulated: int,
    only: tuple[str, ...],
) -> None:
    """Print a table for each checkpoint: relative L2, SQNR, agreement with float, and the drop with its interval."""
    seen = {"openvino": images, "onnxruntime": images, "tensorrt": emulated}
    backends = [backend for backend, number in seen.items() if number]
    for path in checkpoints:
        loaded = load_checkpoint(path)
        recipe = loaded.preprocessing or loaded.customary
        if recipe is None:
            raise click.UsageError(f"{path} stores no pre-processing.")
        calibration = calibration_images(open_dataset(calibration_data, Split.TRAIN), count, recipe)
        test = open_dataset(data, Split.TEST)
        chosen = range(min(images, len(test)))
        inputs = np.stack([prepare(test.image(index), recipe) for index in chosen])
        labels = np.array([test.label(index) for index in chosen])
        graph = reference_graph(loaded, recipe, lambda line: None)
        engine = open_builder("openvino").build(model_bytes(graph), BuildOptions(precision=Precision.FP32))
        expected = outputs_of(open_runner("openvino", engine), inputs)
        top1 = 100 * top_k_correct(expected, labels, 1).mean()
        click.echo(f"\n{path.name}, FP32 {top1:.2f} % of {len(labels):,} images\n")
        click.echo(f"| | {' | '.join(f'{name}, {min(seen[name], len(labels)):,} images' for name in backends)} |")
        click.echo(f"|---|{'---|' * len(backends)}")
        for name, make in variants(graph, calibration).items():
            if only and name not in only:
                continue
            artifact = make()
            row = []
            for backend in backends:
                found = outputs_of(open_int8(artifact, backend), inputs[: seen[backend]])
                row.append(cells(expected[: len(found)], found, labels[: len(found)]))
            click.echo(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
