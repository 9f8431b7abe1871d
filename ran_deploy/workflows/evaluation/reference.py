"""The FP32 reference graph of a checkpoint, and its parity with PyTorch."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import torch

from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.simplify import simplified
from ran_deploy.counts import counted
from ran_deploy.errors import CheckpointError, ConfigError, ConversionError
from ran_deploy.models import LoadedCheckpoint
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification.metrics import relative_l2

__all__ = ["reference_graph", "require_meaning", "require_parity", "torch_logits"]

logger = logging.getLogger(__name__)

PARITY_BATCHES = (1, 5)
PARITY_RTOL = 1e-4  # relative L2; float32 sums of thousands of products in another order stay below 1e-5 in most nets
ROUNDINGS = 3  # of PyTorch's own distance from float64, which a net that amplifies rounding may differ by
TORCH_BATCH = 16


def reference_graph(checkpoint: LoadedCheckpoint, recipe: Preprocessing, report: Callable[[str], None]) -> ir.Model:
    """Return the checkpoint's float32 graph: uint8 NHWC image in, logits out, clean of what passes can remove."""
    report(f"exporting to ONNX at {recipe.crop[0]}x{recipe.crop[1]}")
    model = onnx_from_module(checkpoint.module, recipe.crop, input_name=INPUT, output_name=OUTPUT)
    exported = len(model.graph)
    model, note = simplified(model)
    model, _ = run_passes(model)
    report(f"graph: {exported} nodes as exported, {len(model.graph)} after simplification ({note})")
    add_uint8_prologue(model, recipe)
    return model


def torch_logits(
    checkpoint: LoadedCheckpoint, recipe: Preprocessing, inputs: np.ndarray, dtype: torch.dtype = torch.float32
) -> np.ndarray:
    """Return PyTorch's logits (N, classes) for uint8 inputs (N, H, W, 3), normalised here in float64.

    Raises: ConfigError if the network does not take this input size.
    """
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    module = checkpoint.module if dtype is torch.float32 else copy.deepcopy(checkpoint.module).to(dtype)
    rows = []
    for start in range(0, len(inputs), TORCH_BATCH):
        normalised = (inputs[start : start + TORCH_BATCH] / 255.0 - mean) / std
        images = torch.from_numpy(normalised.transpose(0, 3, 1, 2)).to(dtype)
        try:
            with torch.inference_mode():
                rows.append(module(images).numpy())
        except (RuntimeError, ValueError) as exc:
            cause = str(exc).strip().splitlines()[0]
            raise ConfigError(
                f"{checkpoint.architecture} does not run at input size {recipe.crop[0]}x{recipe.crop[1]}: {cause}. "
                "Choose another --input-size."
            ) from exc
    return np.concatenate(rows)


def require_meaning(inputs: np.ndarray, expected: np.ndarray) -> None:
    """Look at the network's own outputs (N, classes) for `inputs` before anything is compared with them.

    Raises: CheckpointError if some are NaN or infinite. Warns if all are equal.
    """
    broken = int((~np.isfinite(expected)).any(axis=1).sum())
    if broken:
        raise CheckpointError(
            f"In PyTorch itself outputs are NaN or infinite for {broken} of {counted(len(inputs), 'input')}: weights "
            "or BatchNorm statistics (a running_var below 0?) are damaged. Export a checkpoint that works."
        )
    if len(np.unique(inputs, axis=0)) > 1 and not np.ptp(expected, axis=0).any():
        logger.warning(
            "the network's outputs are the same for all %d inputs: is it trained? No self-test proves anything of it.",
            len(inputs),
        )


def require_parity(
    graph: ir.Model, checkpoint: LoadedCheckpoint, recipe: Preprocessing, inputs: np.ndarray, expected: np.ndarray
) -> None:
    """Compare the graph with PyTorch at batch 1 and 5. Raises: ConversionError if they differ by more than rounding."""
    runner, roundings = open_reference(model_bytes(graph)), []
    try:
        for batch in PARITY_BATCHES:
            logits = runner.infer({INPUT: inputs[:batch]})[OUTPUT]
            difference = relative_l2(expected[:batch], logits)
            if difference <= PARITY_RTOL:
                continue
            exact = torch_logits(checkpoint, recipe, inputs[:batch], torch.float64)
            rounding = relative_l2(exact, expected[:batch])
            if not difference <= ROUNDINGS * rounding:
                raise ConversionError(
                    f"The exported graph differs from PyTorch at batch {batch} by {difference:.1e} relative L2 (limit "
                    f"{max(PARITY_RTOL, ROUNDINGS * rounding):.0e}). The network computes something the export "
                    "does not reproduce: report it, with the network."
                )
            roundings.append(rounding)
    finally:
        runner.close()
    if roundings:
        logger.warning(
            "the network amplifies rounding: in PyTorch float32 is %.1e relative L2 away from float64 on these inputs. "
            "Give typical ones with --golden or --calibration-data.",
            max(roundings),
        )
