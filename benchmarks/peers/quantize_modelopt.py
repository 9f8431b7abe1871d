"""NVIDIA ModelOpt's ONNX quantizer: python quantize_modelopt.py GRAPH.onnx CALIBRATION.npz OUTPUT.onnx VARIANT

Runs in ModelOpt's own environment (it pins an older onnx and replaces onnxruntime); int8_accuracy.py calls it.
CALIBRATION holds `images`, uint8 (N, H, W, 3) as GRAPH takes them. VARIANT is its calibration method: `entropy`, its
default, or `max`. The rest is its defaults: places by TensorRT's rules, the float rest in FP16.
"""

from __future__ import annotations

import sys

import numpy as np
from modelopt.onnx.quantization import quantize

INPUT = "image"


def main(graph: str, calibration: str, output: str, variant: str) -> None:
    images = np.load(calibration)["images"]
    quantize(
        graph,
        quantize_mode="int8",
        calibration_data={INPUT: images},
        calibration_method=variant,
        calibration_eps=["cpu"],
        output_path=output,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
