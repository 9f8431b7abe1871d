"""A bundle's network for TensorRT 8.5 and 8.6 (JetPack 5 and 6.0), where its own trtexec builds and runs the engine.

Written are a graph of opset 17, golden inputs as raw files, what they must give, and two scripts that need nothing
but trtexec and Python: one builds the engine and runs the golden inputs, the other compares.
Sources: https://github.com/NVIDIA/TensorRT/tree/release/8.5/samples/trtexec for its options and files;
https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/Changelog.md for uint8 inputs, which 8.5 brought.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import check, model_bytes, model_from_bytes
from ran_deploy.converters.norms import find_norm_arithmetic
from ran_deploy.errors import OutputError
from ran_deploy.manifest import BatchProfile, Manifest, Task
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import describe
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.described import require_described
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification import standalone
from ran_deploy.verification.golden import tolerance_of
from ran_deploy.verification.golden_rows import ROW_RULES, allowed_errors, lowest_cosines
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.whole_file import write_whole_folder
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.engines.loading import require_dialect
from ran_deploy.workflows.evaluation.evaluators import MODEL_FILE
from ran_deploy.workflows.exporting.lowering import evaluate

__all__ = ["write_trtexec_recipe"]

logger = logging.getLogger(__name__)

GRAPH, ENGINE, EXPECTED, LABELS = "model.onnx", "model.plan", "expected.json", "labels.txt"
BUILD, CHECK, README = "build.sh", "check.py", "README.txt"
WORKSPACE_MIB = 1024
IN_FLOAT = "FP16 is left out: it cannot hold the squares under this network's divisions by a norm"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is written: the graph, golden inputs uint8 (N, H, W, 3), outputs by name, and what is allowed of them."""

    graph: bytes
    inputs: np.ndarray
    outputs: Mapping[str, np.ndarray]
    tolerance: float
    half: bool  # whether the float part may be FP16


def write_trtexec_recipe(
    bundle: Bundle, folder: Path, *, batch: BatchProfile | None = None, workspace_mib: int = WORKSPACE_MIB
) -> Path:
    """Write the network of `bundle` and its proof to the new `folder` and return it.

    Raises: BundleError if the bundle was exported without TensorRT, ConversionError for a graph that opset 17 cannot
    say, OutputError.
    """
    refuse_inside_bundle(folder)
    if folder.exists():
        raise OutputError(f"{folder} already exists and is not replaced; choose another --trtexec.")
    recipe = _recipe(bundle)
    profile = batch or bundle.manifest.batch
    sizes = sorted({profile.minimum, max(profile.minimum, profile.maximum // 2 + 1), profile.maximum})
    files = {
        GRAPH: recipe.graph,
        EXPECTED: json.dumps(_expected(bundle.manifest, recipe, sizes)).encode(),
        BUILD: _build_script(bundle.manifest, recipe, profile, sizes, workspace_mib).encode(),
        CHECK: inspect.getsource(standalone).encode(),
        README: _readme(bundle.manifest, recipe).encode(),
    }
    if bundle.manifest.labels is not None:
        files[LABELS] = "".join(f"{' '.join(label.split())}\n" for label in bundle.manifest.labels).encode()
    for size in sizes:
        rows = np.arange(size) % len(recipe.inputs)
        files[f"image_{size}.bin"] = recipe.inputs[rows].tobytes()
    write_whole_folder(folder, files)
    return folder


def _recipe(bundle: Bundle) -> Recipe:
    dialect = require_dialect(bundle, "tensorrt")
    precision = bundle.manifest.precision
    model = lower(model_from_bytes(bundle.read(MODEL_FILE)), "tensorrt8", precision)
    check(model)
    half = precision is not Precision.FP32
    if half and find_norm_arithmetic(model.graph):
        logger.warning("%s", IN_FLOAT)
        half = False
    graph, golden = model_bytes(model), read_golden(bundle)
    runner = open_reference(graph)
    require_described(runner, bundle.manifest, "tensorrt")
    outputs = evaluate(runner, golden.inputs)
    # TensorRT 8 chooses between float32 and FP16 layer by layer: between these two, and as far again beyond.
    spread = relative_l2(outputs[OUTPUT], golden.logits_of(dialect)) if half else 0.0
    return Recipe(graph=graph, inputs=golden.inputs, outputs=outputs, tolerance=tolerance_of(spread), half=half)


def _expected(manifest: Manifest, recipe: Recipe, sizes: list[int]) -> dict[str, object]:
    """Return what check.py reads: outputs, and for each row the label or the cosine that is certain, if any."""
    rows = recipe.outputs[OUTPUT]
    allowed = allowed_errors(rows, recipe.tolerance)
    certain = ROW_RULES[manifest.task].certain(rows, allowed)
    labels: list[int | None] = [None] * len(rows)
    cosines: list[float | None] = [None] * len(rows)
    if manifest.task is Task.CLASSIFICATION:
        labels = [int(row.argmax()) if sure else None for row, sure in zip(rows, certain, strict=True)]
    else:
        lowest = lowest_cosines(rows, allowed)
        cosines = [float(value) if sure else None for value, sure in zip(lowest, certain, strict=True)]
    masks = {mask.output: recipe.outputs[mask.output] for mask in manifest.attention}
    return {
        "output": OUTPUT,
        "batches": sizes,
        "tolerance": recipe.tolerance,
        "rows": rows.tolist(),
        "labels": labels,
        "lowest_cosines": cosines,
        "attention": {name: mask.reshape(len(mask), -1).tolist() for name, mask in masks.items()},
    }


def _flags(precision: Precision, half: bool) -> str:
    return ("--int8 " if precision is Precision.INT8 else "") + ("--fp16" if half else "--noTF32")


def _build_script(
    manifest: Manifest, recipe: Recipe, profile: BatchProfile, sizes: list[int], workspace_mib: int
) -> str:
    height, width = manifest.preprocessing.crop
    shapes = {"min": profile.minimum, "opt": profile.optimum, "max": profile.maximum}
    given = " ".join(f"--{name}Shapes={INPUT}:{size}x{height}x{width}x3" for name, size in shapes.items())
    return f"""#!/bin/sh
# Builds {ENGINE} from {GRAPH} with TensorRT's own trtexec, runs the golden inputs and checks what comes out.
# Further options reach the build, such as --useDLACore=0 --allowGPUFallback. TRTEXEC is where trtexec stands.
set -eu
cd "$(dirname "$0")"
trtexec=${{TRTEXEC:-/usr/src/tensorrt/bin/trtexec}}
command -v "$trtexec" >/dev/null || {{ echo "{BUILD}: no $trtexec here; set TRTEXEC to where trtexec is" >&2; exit 2; }}
"$trtexec" --onnx={GRAPH} --saveEngine={ENGINE} {_flags(manifest.precision, recipe.half)} \\
    {given} \\
    --memPoolSize=workspace:{workspace_mib} "$@"
for size in {" ".join(map(str, sizes))}; do
    "$trtexec" --loadEngine={ENGINE} --shapes={INPUT}:${{size}}x{height}x{width}x3 \\
        --loadInputs={INPUT}:image_$size.bin --exportOutput=found_$size.json --iterations=1 --warmUp=0 --duration=0
done
python3 {CHECK}
"""


def _readme(manifest: Manifest, recipe: Recipe) -> str:
    height, width = manifest.preprocessing.crop
    masks = "".join(f"\n  {m.output}: float32 (N, {m.height}, {m.width}), a soft mask" for m in manifest.attention)
    note = f"\n{IN_FLOAT}.\n" if manifest.precision is not Precision.FP32 and not recipe.half else ""
    classes = f" of the classes in {LABELS}, in this order" if manifest.labels is not None else ""
    meaning = "logits" if manifest.task is Task.CLASSIFICATION else "features"
    return f"""{manifest.name}: {manifest.architecture}, {manifest.precision.value}
For TensorRT 8.5 and 8.6 (JetPack 5 and 6.0)

On the device:
  sh {BUILD}

It builds {ENGINE} with trtexec, runs the golden inputs image_N.bin at each batch size N and compares what comes out
with {EXPECTED}. Use the engine only if the last lines say "passed". It is bound to this GPU and TensorRT version.

Input
  {INPUT}: uint8 (N, {height}, {width}, 3), {manifest.preprocessing.channel_order.value.upper()}
  {describe(manifest.preprocessing)}
  Mean and std are in the graph: what is before them is to be done to an image, on bytes.
Output
  {OUTPUT}: float32 (N, {manifest.output_size}), {meaning}{classes}{masks}

Allowed is a relative L2 distance of {recipe.tolerance:.4f}, and no other label (or direction) than is certain under it.
INT8 layers are those with QuantizeLinear and DequantizeLinear in the graph. In the rest TensorRT 8 chooses between
float32 and FP16 where --fp16 is given: it has no strong typing.{note}
"""
