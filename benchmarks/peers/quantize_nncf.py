"""NNCF as its documentation recommends for CPUs: python quantize_nncf.py GRAPH.onnx CALIBRATION.npz OUTPUT.xml VARIANT

Runs in NNCF's own environment; int8_accuracy.py calls it. CALIBRATION holds `images`, uint8 (N, H, W, 3) as GRAPH takes
them, and `labels`. All of the images are used (its default is 300 of them).
"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import openvino as ov

INPUT = "image"
MAX_DROP = 0.001  # of top-1 accuracy, on the calibration images: the documentation's simplest case
BATCH = 64
VARIANTS = {
    "default": {},
    "mixed": {"preset": nncf.QuantizationPreset.MIXED},  # recommended for activations other than ReLU
    "accuracy control": {"max_drop": MAX_DROP},
}


def accuracy(compiled: ov.CompiledModel, batches) -> float:
    """Return the share of images whose largest output is that of their label."""
    right = [compiled({INPUT: images})[0].argmax(axis=1) == labels for images, labels in batches]
    return float(np.concatenate(right).mean())


def main(graph: str, calibration: str, output: str, variant: str) -> None:
    arrays = np.load(calibration)
    images, labels = arrays["images"], arrays["labels"]
    dataset = nncf.Dataset([image[None] for image in images], lambda image: {INPUT: image})
    model = ov.Core().read_model(graph)
    settings = {"target_device": nncf.TargetDevice.CPU, "subset_size": len(images), **VARIANTS[variant]}
    if variant == "accuracy control":
        starts = range(0, len(images), BATCH)
        batches = [(images[start : start + BATCH], labels[start : start + BATCH]) for start in starts]
        validation = nncf.Dataset(batches)
        quantized = nncf.quantize_with_accuracy_control(model, dataset, validation, accuracy, **settings)
    else:
        quantized = nncf.quantize(model, dataset, **settings)
    ov.save_model(quantized, output, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
