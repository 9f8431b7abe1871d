"""The FP32 reference graph of a checkpoint, and its parity with PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch

from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.simplify import simplified
from ran_deploy.errors import ConfigError, ConversionError
from ran_deploy.models import LoadedCheckpoint
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification.metrics import relative_l2

__all__ = ["reference_graph", "require_parity", "torch_logits"]

PARITY_BATCHES = (1, 5)
PARITY_RTOL = 1e-4  # relative L2; float32 sums of thousands of products in another order stay below 1e-5
TORCH_BATCH = 16


def reference_graph(checkpoint: LoadedCheckpoint, recipe: Preprocessing, report: Callable[[str], None]) -> ir.Model:
    """Return the checkpoint's float32 graph: uint8 NHWC image in, logits out, clean of what passes can remove."""
    report(f"exporting to ONNX at {recipe.crop[0]}x{recipe.crop[1]}")
    model = onnx_from_module(checkpoint.module, recipe.crop, input_name=INPUT, output_name=OUTPUT)
    exported = len(model.graph)
    model, note = simplified(model)
    model, _ = run_passes(model)
    add_uint8_prologue(model, recipe)
    report(f"graph: {exported} nodes as exported, {len(model.graph)} after simplification ({note})")
    return model


def torch_logits(checkpoint: LoadedCheckpoint, recipe: Preprocessing, inputs: np.ndarray) -> np.ndarray:
    """Return PyTorch's float32 logits (N, classes) for uint8 inputs (N, H, W, 3), normalised here in float64.

    Raises: ConfigError if the network does not take this input size.
    """
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    rows = []
    for start in range(0, len(inputs), TORCH_BATCH):
        normalised = (inputs[start : start + TORCH_BATCH] / 255.0 - mean) / std
        images = torch.from_numpy(normalised.transpose(0, 3, 1, 2).astype(np.float32))
        try:
            with torch.inference_mode():
                rows.append(checkpoint.module(images).numpy())
        except (RuntimeError, ValueError) as exc:
            cause = str(exc).strip().splitlines()[0]
            raise ConfigError(
                f"{checkpoint.architecture} does not run at input size {recipe.crop[0]}x{recipe.crop[1]}: {cause}. "
                "Choose another --input-size."
            ) from exc
    return np.concatenate(rows)


def require_parity(graph: ir.Model, inputs: np.ndarray, expected: np.ndarray) -> None:
    """Compare the graph with PyTorch at batch 1 and 5. Raises: ConversionError if they differ by more than rounding."""
    runner = open_reference(model_bytes(graph))
    try:
        for batch in PARITY_BATCHES:
            logits = runner.infer({INPUT: inputs[:batch]})[OUTPUT]
            difference = relative_l2(expected[:batch], logits)
            if not difference <= PARITY_RTOL:
                raise ConversionError(
                    f"The exported graph differs from PyTorch at batch {batch} by {difference:.1e} relative L2 "
                    f"(limit {PARITY_RTOL:.0e}). The network computes something the export does not reproduce."
                )
    finally:
        runner.close()
