"""Lowering the artifact graph to each dialect, and recording what each computes on the golden inputs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.errors import BackendUnavailableError, ConversionError
from ran_deploy.manifest import DialectRecord, Task
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_emulation
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.metrics import agreeing, relative_l2

__all__ = ["Dialect", "evaluate", "lower_dialect"]

logger = logging.getLogger(__name__)

# Which CPU engine shows how far an evaluation of each dialect may be from the exact one. OpenVINO is asked about its
# own dialect alone: without VNNI it saturates the products of full-range weights, which only its own dialect avoids.
SPREAD_BACKEND = {"tensorrt": "onnxruntime", "openvino": "openvino", "onnxruntime": "onnxruntime"}
MAX_SPREAD = 0.03  # two right evaluations of one INT8 graph came to at most 0.022; more is a fault, not rounding
FAR = 0.2  # relative L2 from PyTorch; INT8 of the demo net came to 0.03 at most
MICRO_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One dialect graph, its golden outputs and its record in the manifest; `attention` is by name of the output."""

    graph: bytes
    logits: np.ndarray
    attention: Mapping[str, np.ndarray]
    record: DialectRecord


def lower_dialect(
    artifact: ir.Model, dialect: str, precision: Precision, inputs: np.ndarray, expected: np.ndarray, task: Task
) -> Dialect:
    """Lower `artifact`, evaluate the result exactly as written and measure how far real CPU engines are from that.

    `expected` are PyTorch's outputs. Raises: ConversionError if the dialect gives no finite ones,
    BackendUnavailableError if nothing here can evaluate it.
    """
    model = lower(artifact, dialect, precision)
    check(model)
    graph = model_bytes(model)
    outputs = evaluate(open_emulation(graph, dialect, precision), inputs)
    logits = outputs[OUTPUT]
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise ConversionError(
            f"The {dialect} graph gives NaN or infinity: activations of this network exceed what FP16 holds (65504). "
            "Choose --precision fp32, or only backends other than TensorRT for int8."
        )
    spread = _spread(graph, precision, inputs, logits, dialect)
    attention = {name: output for name, output in outputs.items() if name != OUTPUT}
    record = DialectRecord(
        graph=f"graphs/{dialect}.onnx",
        spread=spread,
        relative_l2=relative_l2(expected, logits),
        label_agreement=float(agreeing(expected, logits).mean()) if task is Task.CLASSIFICATION else None,
    )
    logger.debug("%s: relative L2 to PyTorch %.4f, spread %.4f", dialect, record.relative_l2, spread)
    if record.relative_l2 > FAR:
        logger.warning(
            "%s changes this network's outputs by %.2f relative L2 (%s dialect): validate on --data before it is used; "
            "more typical calibration images, --calibration percentile or a higher --precision may help",
            precision.value,
            record.relative_l2,
            dialect,
        )
    return Dialect(graph=graph, logits=logits, attention=attention, record=record)


def _spread(graph: bytes, precision: Precision, inputs: np.ndarray, logits: np.ndarray, dialect: str) -> float:
    backend = SPREAD_BACKEND[dialect]
    try:
        engine = open_builder(backend).build(graph, BuildOptions(precision=precision))
    except BackendUnavailableError:
        return 0.0
    distance = relative_l2(logits, evaluate(open_runner(backend, engine), inputs)[OUTPUT])
    if not distance <= MAX_SPREAD:
        logger.warning(
            "%s evaluates the %s graph %.3f relative L2 away from its exact evaluation", backend, dialect, distance
        )
    return distance if distance <= MAX_SPREAD else MAX_SPREAD  # NaN too


def evaluate(runner: Runner, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Return every output of `inputs`, run in small batches, and close the runner."""
    try:
        parts = [runner.infer({INPUT: inputs[i : i + MICRO_BATCH]}) for i in range(0, len(inputs), MICRO_BATCH)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    finally:
        runner.close()
