"""The demo network with one unit that INT8 ruins, and a search in it that needs no PyTorch; also run as a process.

The unit's last convolution reads two equal channels. A large number is added to the weights of one and taken from
those of the other: the function stays, but the scale of each output channel follows the large numbers and the other
weights vanish. No calibration and no exact rescaling of channels cures that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import open_bundle
from ran_deploy.calibration import CalibrationMethod
from ran_deploy.converters.graph import model_from_bytes, module_of, require_array
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.workflows.exporting.budget import WithinBudget, quantized_within, read_budget
from ran_deploy.workflows.exporting.quantization import CalibrationImages, calibration_images

__all__ = ["HARD_REGION", "hardened", "search"]

HARD_UNIT, HARD_REGION = "stages.2.0", "stage3.entry"
CANCELLING = np.float32(24)  # some 200 times a weight


def hardened(model: ir.Model, unit: str = HARD_UNIT) -> ir.Model:
    """Return a float graph whose bottleneck `unit`, a path of modules, needs float."""
    twin = model.clone()
    conv2, conv3 = (
        next(node for node in twin.graph if node.op_type == "Conv" and module_of(node) == f"{unit}.{name}")
        for name in ("conv2", "conv3")
    )
    for value in conv2.inputs[1:]:  # weight and bias, BatchNorm folded into them
        array = require_array(value).copy()
        array[1] = array[0]
        value.const_value = ir.tensor(array, name=value.name)
    weight = require_array(conv3.inputs[1]).copy()
    signs = np.where(np.arange(len(weight)) % 2, 1, -1).reshape(-1, 1, 1)
    weight[:, 0] += CANCELLING * signs
    weight[:, 1] -= CANCELLING * signs
    conv3.inputs[1].const_value = ir.tensor(weight, name=conv3.inputs[1].name)
    return twin


def search(
    bundle: Path, calibration: Path, validation: Path, cache: Path, *, max_drop_pp: float = 3, images: int = 16
) -> tuple[WithinBudget, list[str]]:
    """Search in the hardened network of the demo bundle; return what was found and the lines that were reported."""
    opened = open_bundle(bundle)
    model = hardened(model_from_bytes(opened.read("reference.onnx")))
    manifest = opened.manifest
    found: CalibrationImages = calibration_images(
        open_dataset(calibration, Split.TRAIN), images, manifest.preprocessing
    )
    lines: list[str] = []
    budget = read_budget(validation, max_drop_pp, manifest, found, lines.append, lambda done, total: None)
    within = quantized_within(
        budget,
        model,
        found,
        (CalibrationMethod.MINMAX,),
        ("onnxruntime",),
        cache,
        lines.append,
        lambda done, total: None,
    )
    return within, lines


if __name__ == "__main__":
    outcome, reported = search(*map(Path, sys.argv[1:5]))
    print(json.dumps([msgspec.to_builtins(outcome.record), outcome.kept_in_float, reported]))
