"""What int8_accuracy.py makes of a checkpoint: our graphs, what peers are given, test images with FP32's logits."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from peers.evaluation import logits_of, open_as_written

from ran_deploy.bundle import sha256_of
from ran_deploy.datasets import Split, open_dataset, select_indices
from ran_deploy.errors import CheckpointError, DatasetError
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.workflows.export import ExportConfig, export_bundle

DIALECTS = {"OpenVINO": "openvino", "ONNX Runtime": "onnxruntime", "as written": "tensorrt"}  # ours, by evaluator


@dataclass(frozen=True, kw_only=True)
class Net:
    """One checkpoint: its files in `folder`, and the test images with labels and FP32's logits."""

    name: str
    folder: Path
    reference: Path
    calibration: Path
    images: np.ndarray
    labels: np.ndarray
    expected: np.ndarray


def say(line: str) -> None:
    """Tell what is being done."""
    print(line, file=sys.stderr, flush=True)


def prepared_images(path: Path, split: Split, count: int, recipe: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return images as the graphs take them, uint8 (N, H, W, 3), and labels (N,)."""
    dataset = open_dataset(path, split)
    chosen = select_indices(dataset, count)
    labels = [dataset.label(index) for index in chosen]
    if None in labels:
        raise DatasetError(f"{path} has images without labels: accuracy needs one for each.")
    return np.stack([prepare(dataset.image(index), recipe) for index in chosen]), np.array(labels)


def prepare_net(checkpoint: Path, output: Path, options: argparse.Namespace) -> Net:
    """Export the checkpoint as a user would, and lay out what the peers get.

    It is exported again each time: graphs that come out the same are not measured again. Raises: RanDeployError.
    """
    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint} is no file: give the checkpoint of a network.")
    name = f"{checkpoint.stem}-{sha256_of(checkpoint.read_bytes())[:8]}"
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{checkpoint}: exporting in INT8")
    config = ExportConfig(
        checkpoint=checkpoint,
        output=folder / "ours.ran",
        calibration_data=options.calibration,
        calibration_images=options.calibration_images,
        overwrite=True,
    )
    bundle = export_bundle(config).bundle
    for evaluator, dialect in DIALECTS.items():
        our_graph(folder, evaluator).write_bytes(bundle.read(bundle.manifest.dialects[dialect].graph))
    say(f"{checkpoint}: exporting in FP32")  # the reference of an INT8 bundle may have been equalised for it
    plain = replace(config, output=folder / "fp32.ran", precision=Precision.FP32, backends=("onnxruntime",))
    (folder / "reference.onnx").write_bytes(export_bundle(plain).bundle.read("model.onnx"))
    recipe = bundle.manifest.preprocessing
    seen, labels = prepared_images(options.calibration, Split.TRAIN, options.calibration_images, recipe)
    np.savez(folder / "calibration.npz", images=seen, labels=labels)
    images, labels = prepared_images(options.data, Split.TEST, options.images, recipe)
    return Net(
        name=name,
        folder=folder,
        reference=folder / "reference.onnx",
        calibration=folder / "calibration.npz",
        images=images,
        labels=labels,
        expected=reference_logits(folder, images),
    )


def our_graph(folder: Path, evaluator: str) -> Path:
    """Return where our graph for this evaluator is."""
    return folder / f"ours-{DIALECTS[evaluator]}.onnx"


def reference_logits(folder: Path, images: np.ndarray) -> np.ndarray:
    """Return the logits of the FP32 graph, computed once."""
    graph = folder / "reference.onnx"
    path = folder / f"fp32-{digest(sha256_of(graph.read_bytes()), sha256_of(images.tobytes()))}.npy"
    if not path.exists():
        say(f"{folder.name}: FP32 on {len(images):,} images")
        save(path, logits_of(open_as_written(graph), images))
    return np.load(path)


def save(path: Path, array: np.ndarray) -> None:
    """Write all of a .npy file or nothing."""
    part = path.with_suffix(".part.npy")
    np.save(part, array)
    part.replace(path)


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that stand for all of `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
