"""Choosing among the ranges of several methods, for each tensor, by the error of the layers that read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from ran_deploy.calibration import CalibrationMethod, Ranges, sum_outputs
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.probe import ProbedReader, probe_graph
from ran_deploy.converters.quantize import find_quantized_tensors
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT

__all__ = ["best_candidate", "chosen_methods", "distinct_ranges", "output_errors"]

# For tensors that only a dialect rounds, which no layer is asked about: of all ranges its own error is least. On the
# demo net the ONNX Runtime dialect has 0.019 relative L2 with it, 0.027 with min-max.
UNPROBED = CalibrationMethod.MSE
# The part of the squared error that clipping must save. Rounding is noise that later layers average, clipping is not,
# so the plain minimum overrates it: with 0 OpenVINO's logits were 10 % further off than by min-max on the demo net.
LEAST_GAIN = 0.5


def chosen_methods(
    model: ir.Model,
    images: np.ndarray,
    ranges: Mapping[CalibrationMethod, Ranges],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, CalibrationMethod]:
    """Return the method for each tensor, by what its range does to the outputs of the layers that read it.

    Their squared error decides, see `best_candidate`; the first method of `ranges` is the one that clips nothing.
    `ranges` is what the methods gave for the float graph `model`, `images` are prepared uint8 (N, H, W, 3). Takes one
    pass over them, as long as a forward in float and one for each method; only sums of squares leave the graph.
    """
    candidates = {name: distinct_ranges(ranges, name) for name in find_quantized_tensors(model)}
    probed = {name: tuple(found.values()) for name, found in candidates.items() if len(found) > 1}
    chosen = dict.fromkeys(next(iter(ranges.values())), UNPROBED)
    chosen |= {name: next(iter(found)) for name, found in candidates.items()}
    if probed:
        probe, readers = probe_graph(model, probed)
        runner = open_reference(model_bytes(probe))
        try:
            sums = sum_outputs(lambda batch: runner.infer({INPUT: batch}), [images], progress=progress)
        finally:
            runner.close()
        for name, errors in output_errors(readers, sums).items():
            chosen[name] = list(candidates[name])[best_candidate(errors)]
    return chosen


def best_candidate(errors: np.ndarray) -> int:
    """Return the index of the least error if it is below the first by more than LEAST_GAIN, else 0."""
    best = int(np.argmin(errors))
    return best if errors[best] < (1 - LEAST_GAIN) * errors[0] else 0


def distinct_ranges(ranges: Mapping[CalibrationMethod, Ranges], tensor: str) -> dict[CalibrationMethod, float]:
    """Return the different ranges of a tensor, each under the first method that gives it."""
    found: dict[float, CalibrationMethod] = {}
    for method, limits in ranges.items():
        found.setdefault(limits[tensor], method)
    return {method: limit for limit, method in found.items()}


def output_errors(readers: Iterable[ProbedReader], sums: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Return for each tensor the error of each candidate: squared, relative to each reader's output, over its readers.

    `sums` are those of the probe's outputs over all images. A reader whose output is always zero counts nothing.
    """
    errors: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(1))
    for reader in readers:
        if sums[reader.energy] > 0:
            errors[reader.tensor] = errors[reader.tensor] + [sums[name] / sums[reader.energy] for name in reader.errors]
    return dict(errors)
