"""Where a bundle's engines lose accuracy: a dialect's graph against the FP32 graph, layer by layer.

Needs onnx and onnx-ir: import it where they are known to be there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import Bundle
from ran_deploy.converters.graph import model_bytes, model_from_bytes
from ran_deploy.converters.layers import Layer, QuantizedInput, find_layers
from ran_deploy.converters.quantize import with_outputs
from ran_deploy.runtime.backends.ort import open_emulation, open_reference
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.layer_errors import (
    InputRange,
    LayerError,
    LayerErrors,
    MagnitudeHistogram,
    RangeUse,
    TensorDistances,
    furthest,
    magnitude_counts,
    range_use,
)
from ran_deploy.verification.metrics import LogitErrors
from ran_deploy.workflows.evaluation.evaluators import REFERENCE_FILE

__all__ = ["layer_errors"]

PIXELS_AT_ONCE = 2**13  # the outputs of all layers are in memory at once: of 8 images of 32x32, or one of 224x224
MOST_HISTOGRAMS = 4

Progress = Callable[[int, int], None]  # images done, of how many


def layer_errors(
    bundle: Bundle, dialect: str, images: np.ndarray, source: str, progress: Progress = lambda done, total: None
) -> LayerErrors | None:
    """Compare the layers of a dialect's graph with FP32 on prepared images, uint8 (N, H, W, 3), of `source`.

    None where no layer is in both graphs. The bundle has its FP32 graph beside a dialect of another precision.
    Raises: BackendUnavailableError without an onnxruntime that evaluates the dialect as written.
    """
    reference = model_from_bytes(bundle.read(REFERENCE_FILE))
    lowered = model_from_bytes(bundle.read(bundle.manifest.dialects[dialect].graph))
    layers = find_layers(reference.graph, lowered.graph)
    if not layers:
        return None
    outputs = {layer.output for layer in layers}
    inputs = {layer.input.tensor: layer.input for layer in layers if layer.input}
    emulated = open_emulation(_bytes_with(lowered, outputs), dialect, bundle.manifest.precision)
    with contextlib.closing(emulated), contextlib.closing(_exact(reference, {*outputs, *inputs})) as exact:
        errors, uses = _gathered(exact, emulated, outputs, inputs, images, progress)
    figures = tuple(_layer_error(layer, errors[layer.output], uses) for layer in layers)
    worst = furthest(figures)
    return LayerErrors(
        dialect=dialect,
        images=len(images),
        source=source,
        layers=figures,
        worst=worst,
        histograms=_histograms(reference, [figures[index] for index in worst], images),
    )


def _bytes_with(model: ir.Model, tensors: Collection[str]) -> bytes:
    return model_bytes(with_outputs(model, sorted(tensors)))


def _exact(model: ir.Model, tensors: Collection[str]) -> Runner:
    return open_reference(_bytes_with(model, tensors))


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    size = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _gathered(
    exact: Runner,
    emulated: Runner,
    outputs: Collection[str],
    inputs: Mapping[str, QuantizedInput],
    images: np.ndarray,
    progress: Progress,
) -> tuple[dict[str, LogitErrors], dict[str, RangeUse]]:
    """Return how far the outputs of layers are from FP32, and how FP32 uses the ranges of their inputs."""
    distances, uses, done = TensorDistances(), {name: RangeUse() for name in inputs}, 0
    for batch in _batches(images):
        expected, found = exact.infer({INPUT: batch}), emulated.infer({INPUT: batch})
        distances.add(expected, {name: found[name] for name in outputs})
        for name, held in inputs.items():
            uses[name] += range_use(expected[name], held.low, held.high, held.scale)
        done += len(batch)
        progress(done, len(images))
    return distances.errors(), uses


def _layer_error(layer: Layer, error: LogitErrors, uses: Mapping[str, RangeUse]) -> LayerError:
    return LayerError(
        name=layer.name,
        stage=layer.stage,
        branch="mask" if layer.in_mask else "trunk",
        operator=layer.operator,
        tensor=layer.output,
        relative_l2=error.relative_l2,
        sqnr_db=error.sqnr_db,
        input=_input_range(layer.input, uses[layer.input.tensor]) if layer.input else None,
    )


def _input_range(held: QuantizedInput, use: RangeUse) -> InputRange:
    return InputRange(
        tensor=held.tensor,
        low=held.low,
        high=held.high,
        largest=use.largest,
        used=use.largest / held.high,
        clipped=use.clipped / use.values,
    )


def _histograms(
    reference: ir.Model, layers: Sequence[LayerError], images: np.ndarray
) -> tuple[MagnitudeHistogram, ...]:
    """Return the magnitudes that FP32 puts into the first few different inputs of `layers`."""
    shown: dict[str, tuple[LayerError, InputRange]] = {}
    for layer in layers:
        if layer.input is not None and len(shown) < MOST_HISTOGRAMS:
            shown.setdefault(layer.input.tensor, (layer, layer.input))
    if not shown:
        return ()
    ends = {name: max(held.largest, held.high) for name, (_, held) in shown.items()}
    counts = {name: np.zeros(1, np.int64) for name in shown}
    with contextlib.closing(_exact(reference, shown)) as exact:
        for batch in _batches(images):
            tensors = exact.infer({INPUT: batch})
            for name in shown:
                counts[name] = counts[name] + magnitude_counts(tensors[name], ends[name])
    return tuple(
        MagnitudeHistogram(
            layer=layer.name, tensor=name, end=ends[name], limit=held.high, counts=tuple(counts[name].tolist())
        )
        for name, (layer, held) in shown.items()
    )
