"""Logit error and agreement of the demo net in int8 by each calibration method, on each engine: docs/int8.md.

    python benchmarks/calibration_methods.py --data FASHION_MNIST

Everything is compared with the float graph in OpenVINO. TensorRT's dialect is emulated, which takes most of the time:
leave it out with --backend.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import onnx_ir as ir

from ran_deploy.calibration import CalibrationMethod
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import model_bytes
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.models import load_checkpoint
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_emulation
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.evaluation.reference import reference_graph
from ran_deploy.workflows.exporting.quantization import calibration_images, measured_ranges, quantized

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"
BATCH = 32


def outputs_of(runner: Runner, images: np.ndarray) -> np.ndarray:
    try:
        starts = range(0, len(images), BATCH)
        return np.concatenate([runner.infer({INPUT: images[i : i + BATCH]})[OUTPUT] for i in starts])
    finally:
        runner.close()


def open_int8(artifact: ir.Model, backend: str) -> Runner:
    """Return a runner of the artifact's lowering for a CPU engine, or of TensorRT's emulated."""
    graph = model_bytes(lower(artifact, backend, Precision.INT8))
    if backend == "tensorrt":
        return open_emulation(graph, backend, Precision.INT8)
    return open_runner(backend, open_builder(backend).build(graph, BuildOptions(precision=Precision.INT8)))


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Fashion-MNIST; its test images are used.")
@click.option("--checkpoint", type=click.Path(path_type=Path), default=EXAMPLE / "compact.safetensors")
@click.option("--images", type=int, default=512, show_default=True, help="Calibration images.")
@click.option("--backend", "backends", multiple=True, default=["openvino", "onnxruntime", "tensorrt"])
@click.option("--method", "methods", multiple=True, default=[method.value for method in CalibrationMethod])
def main(data: Path, checkpoint: Path, images: int, backends: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """Print a row for each method and engine."""
    loaded = load_checkpoint(checkpoint)
    assert loaded.preprocessing is not None
    calibration = calibration_images(
        open_dataset(EXAMPLE / "calibration.npz", Split.TRAIN), images, loaded.preprocessing
    )
    test = open_dataset(data, Split.TEST)
    inputs = np.stack([prepare(test.image(index), loaded.preprocessing) for index in range(len(test))])
    labels = np.array([test.label(index) for index in range(len(test))])
    graph = reference_graph(loaded, loaded.preprocessing, lambda line: None)
    engine = open_builder("openvino").build(model_bytes(graph), BuildOptions(precision=Precision.FP32))
    expected = outputs_of(open_runner("openvino", engine), inputs)
    click.echo(f"FP32: {100 * (expected.argmax(axis=1) == labels).mean():.2f} % of {len(test):,} images")
    measured = measured_ranges(graph, calibration)
    for method in methods:
        artifact = quantized(graph, calibration, CalibrationMethod(method), measured=measured).model
        for backend in backends:
            logits = outputs_of(open_int8(artifact, backend), inputs)
            top1, same = logits.argmax(axis=1) == labels, logits.argmax(axis=1) == expected.argmax(axis=1)
            click.echo(
                f"{method:<10} {backend:<11} top-1 {100 * top1.mean():.2f} %  agreement {100 * same.mean():.2f} %  "
                f"relative L2 {relative_l2(expected, logits):.4f}"
            )


if __name__ == "__main__":
    main()
