"""FP8 (E4M3) against INT8 on one network: how far each is from FP32, and whether TensorRT-RTX takes the FP8 graph.

python benchmarks/fp8.py BUNDLE.ran [--data PATH] [--images 2000]

BUNDLE is an INT8 export with its reference. FP8 gets the same places and ranges (activations by tensor, weights by
channel, the largest value at 448), everything else is FP32. Both graphs are evaluated exactly as written, on the golden
inputs or on --data. Prints relative L2 of the logits and the share of images that keep their class.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.calibration import table_from_json
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.graph import add_constant, insert_after, model_bytes, model_from_bytes, require_array
from ran_deploy.converters.qdq import insert_pair, scale_from_range
from ran_deploy.converters.quantize import find_weighted_nodes, weight_axis
from ran_deploy.datasets import Split, open_dataset, select_indices
from ran_deploy.errors import RanDeployError
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import prepare
from ran_deploy.runtime.backends.ort import open_emulation, open_reference
from ran_deploy.verification.metrics import agreeing, relative_l2
from ran_deploy.workflows.engines.golden import read_golden

E4M3 = ml_dtypes.float8_e4m3fn
LARGEST = float(ml_dtypes.finfo(E4M3).max)  # 448
BATCH = 8


def fp8_graph(bundle: Bundle) -> ir.Model:
    """Return the reference graph with FP8 Q/DQ on data and weights of every Conv, Gemm and MatMul."""
    model = model_from_bytes(bundle.read("reference.onnx"))
    ranges = table_from_json(bundle.read("calibration.json"), str(bundle.path)).ranges
    graph, restored = model.graph, dict[ir.Value, ir.Value]()
    for node in find_weighted_nodes(graph):
        data, weight = node.inputs[0], node.inputs[1]
        assert data is not None
        assert weight is not None
        if data not in restored:
            pair = insert_pair(graph, data, scale_from_range(ranges[data.name or ""], LARGEST), E4M3(0))
            restored[data] = pair.dequantize.outputs[0]
        if weight not in restored:
            restored[weight] = rounded_weight(graph, weight, weight_axis(node))
        node.replace_input_with(0, restored[data])
        node.replace_input_with(1, restored[weight])
    model.opset_imports[""] = 19  # the first with FP8
    return model


def rounded_weight(graph: ir.Graph, weight: ir.Value, axis: int) -> ir.Value:
    """Add the weights in FP8 with a DequantizeLinear, and return its output."""
    array = require_array(weight)
    scale = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis)).astype(np.float32) / LARGEST
    scale[scale == 0] = 1
    stored = add_constant(
        graph,
        f"{weight.name}_fp8",
        (array / np.expand_dims(scale, [i for i in range(array.ndim) if i != axis])).astype(E4M3),
    )
    inputs = [stored, add_constant(graph, f"{weight.name}_fp8_scale", scale)]
    inputs.append(add_constant(graph, f"{weight.name}_fp8_zero", np.zeros(scale.shape, E4M3)))
    output = ir.Value(name=f"{weight.name}_fp8_dequantized", shape=weight.shape, type=weight.type)
    insert_after(stored, graph, [ir.node("DequantizeLinear", inputs, {"axis": axis}, outputs=[output])])
    return output


def evaluated(runner, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), BATCH)
    return np.concatenate([runner.infer({"image": images[i : i + BATCH]})["logits"] for i in starts])


def images_of(bundle: Bundle, data: Path | None, count: int) -> np.ndarray:
    if data is None:
        return read_golden(bundle).inputs
    dataset = open_dataset(data, Split.TEST)
    recipe = bundle.manifest.preprocessing
    return np.stack([prepare(dataset.image(index), recipe) for index in select_indices(dataset, count)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    images = images_of(bundle, options.data, options.images)
    expected = evaluated(open_reference(bundle.read("reference.onnx")), images)
    fp8 = model_bytes(fp8_graph(bundle))
    int8 = bundle.read(bundle.manifest.dialects["tensorrt"].graph)
    print(f"{len(images)} images\n\n| | relative L2 | same class |\n|---|---|---|")
    for name, runner in (("INT8", open_emulation(int8, "tensorrt", Precision.INT8)), ("FP8", open_reference(fp8))):
        found = evaluated(runner, images)
        print(f"| {name} | {relative_l2(expected, found):.4f} | {100 * agreeing(expected, found).mean():.2f} % |")
    engine = open_builder("tensorrt-rtx").build(
        fp8, BuildOptions(precision=Precision.FP32, batch=bundle.manifest.batch)
    )
    print(f"\nTensorRT-RTX builds the FP8 graph: {len(engine) / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"fp8: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
