"""ONNX Runtime's static quantisation: python quantize_onnxruntime.py GRAPH.onnx CALIBRATION.npz OUTPUT.onnx VARIANT

Runs in an environment of its own; int8_accuracy.py calls it. CALIBRATION holds `images`, uint8 (N, H, W, 3) as GRAPH
takes them. Q/DQ format after quant_pre_process, weights s8 by output channel. VARIANT is activations and calibration
method: `s8` is its default and the first choice of its documentation; `u8` is for where that costs accuracy;
`symmetric` is s8 with zero point 0 and float bias, without which TensorRT's parser refuses the graph.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

INPUT = "image"
BATCH = 8
STRIDE = 8  # batches whose activations are kept at a time; it must divide their number
METHODS = {
    "min-max": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
ACTIVATIONS = {
    "s8": (QuantType.QInt8, {}),
    "u8": (QuantType.QUInt8, {}),
    "symmetric": (QuantType.QInt8, {"ActivationSymmetric": True, "QuantizeBias": False}),
}


class Reader(CalibrationDataReader):
    """Batches of the images, of which its calibrators ask for one range after another."""

    def __init__(self, images: np.ndarray) -> None:
        self.batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        self.set_range(0, len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.rest: Iterator[np.ndarray] = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.rest, None)
        return None if batch is None else {INPUT: batch}


def main(graph: str, calibration: str, output: str, variant: str) -> None:
    activations, method = variant.split()
    activation_type, options = ACTIVATIONS[activations]
    reader = Reader(np.load(calibration)["images"])
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        # Its symbolic shape inference, which is for transformers, cannot follow a Resize here; ONNX's own can.
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=activation_type,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options={"CalibStridedMinMax": math.gcd(STRIDE, len(reader)), **options},
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
