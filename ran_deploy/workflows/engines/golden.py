"""Golden inputs with the outputs every evaluation must reproduce: made at export, compared on each device."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ran_deploy.backends import dialect_of
from ran_deploy.bundle import Bundle
from ran_deploy.errors import BundleError, SelfTestError
from ran_deploy.runtime.backends.trt_slot import GRAPH_CALLS
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.verification.attention import rows_from_masks
from ran_deploy.verification.golden import SelfTestResult, self_test
from ran_deploy.verification.golden_masks import mask_test

__all__ = ["GOLDEN_FILE", "GOLDEN_INPUTS", "Golden", "golden_result", "prove", "read_golden", "synthetic_inputs"]

GOLDEN_FILE = "golden.npz"
GOLDEN_INPUTS = 32


@dataclass(frozen=True, kw_only=True)
class Golden:
    """uint8 inputs (N, H, W, 3) as engines take them, and float32 logits or features (N, output size) by evaluation.

    Keys of `logits` are 'pytorch' and the names of dialects. `attention` has the masks of each dialect as
    `rows_from_masks` gives them, where the bundle puts them out.
    """

    inputs: np.ndarray
    logits: Mapping[str, np.ndarray]
    attention: Mapping[str, np.ndarray] = field(default_factory=dict)

    def logits_of(self, dialect: str) -> np.ndarray:
        """Return what is recorded for a dialect. Raises: BundleError if nothing is."""
        if dialect not in self.logits:
            raise BundleError(
                f"The bundle has no golden logits for the {dialect} dialect. Export it with that backend."
            )
        return self.logits[dialect]

    def to_bytes(self) -> bytes:
        """Return the content of golden.npz."""
        buffer = io.BytesIO()
        outputs: dict[str, Any] = {f"logits_{name}": logits for name, logits in self.logits.items()}
        outputs |= {f"attention_{name}": rows for name, rows in self.attention.items()}
        np.savez(buffer, inputs=self.inputs, **outputs)
        return buffer.getvalue()


def read_golden(bundle: Bundle) -> Golden:
    """Return the golden inputs and logits of a bundle.

    Raises: BundleError if they are damaged, or of other shapes than the manifest says.
    """
    try:
        with np.load(io.BytesIO(bundle.read(GOLDEN_FILE)), allow_pickle=False) as content:
            logits, attention = (
                {key.removeprefix(prefix): content[key] for key in content.files if key.startswith(prefix)}
                for prefix in ("logits_", "attention_")
            )
            golden = Golden(inputs=content["inputs"], logits=logits, attention=attention)
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise BundleError(f"Bundle {bundle.path}: {GOLDEN_FILE} cannot be read ({exc}). Export it again.") from exc
    rows, crop = len(golden.inputs), bundle.manifest.preprocessing.crop
    described = {"inputs": (golden.inputs, (rows, *crop, 3))} | {
        f"logits_{name}": (array, (rows, bundle.manifest.output_size)) for name, array in logits.items()
    }
    for name, (array, shape) in described.items():
        if array.shape != shape:
            raise BundleError(
                f"Bundle {bundle.path}: {GOLDEN_FILE} has {name} of shape {array.shape}, and manifest.json says "
                f"{shape}: one of them was changed. Do not use the bundle: copy or export it again."
            )
    return golden


def synthetic_inputs(size: tuple[int, int], count: int = GOLDEN_INPUTS, seed: int = 0) -> np.ndarray:
    """Return uint8 (count, *size, 3): coloured clouds, smooth at several scales as photographs are."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, *size, 3))
    for cells in (2, 4, 8, 16):
        coarse = rng.standard_normal((count, cells + 1, cells + 1, 3))
        total += _stretched(coarse, size) / np.sqrt(cells)
    low, high = (f(total, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    return np.rint((total - low) / (high - low) * 255).astype(np.uint8)


def _stretched(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate (N, h, w, C) linearly to (N, *size, C), corners on corners."""
    for axis, side in ((1, size[0]), (2, size[1])):
        position = np.linspace(0, grid.shape[axis] - 1, side)
        low = np.minimum(position.astype(int), grid.shape[axis] - 2)
        weight = (position - low).reshape([-1 if i == axis else 1 for i in range(4)])
        grid = np.take(grid, low, axis) * (1 - weight) + np.take(grid, low + 1, axis) * weight
    return grid


def prove(predictor: Predictor, golden: Golden, name: str) -> SelfTestResult:
    """Run the golden self-test of an engine. Raises: SelfTestError, calling it `name`, if it must not be used."""
    result = golden_result(predictor, golden)
    if not result.passed:
        raise SelfTestError(f"{name} failed the golden self-test and is not used: {result.summary}")
    return result


def golden_result(predictor: Predictor, golden: Golden) -> SelfTestResult:
    """Compare an engine with what is recorded for its dialect: logits, then masks where the bundle has any."""
    manifest, dialect = predictor.manifest, dialect_of(predictor.backend)
    result = self_test(
        predictor.infer_batch,
        golden.inputs,
        golden.logits_of(dialect),
        spread=manifest.dialects[dialect].spread,
        max_batch=predictor.batch.maximum,
        task=manifest.task,
        least_calls=GRAPH_CALLS if dialect == "tensorrt" else 1,
        also=[each.least for each in predictor.padding],
    )
    if result.passed and manifest.attention and dialect in golden.attention:
        found = rows_from_masks(predictor.infer_outputs(golden.inputs).attention, manifest.attention)
        masks = mask_test(golden.attention[dialect], found, manifest.attention, result.tolerance)
        return replace(result, passed=masks.passed, summary=masks.joined(result.summary))
    return result
