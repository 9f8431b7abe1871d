"""How far INT8 graphs are from the float graph, as cheaply as can be said: by their outputs on a few images."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import sha256_of
from ran_deploy.converters.graph import model_bytes
from ran_deploy.journal import Journal
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.verification.metrics import relative_l2

__all__ = ["OutputErrors"]

MICRO_BATCH = 8
NOT_FINITE = 1e6  # the error of outputs that are NaN or infinite


class OutputErrors:
    """Relative L2 of the outputs of INT8 artifacts against those of `model`, on `inputs`: uint8 (N, H, W, 3).

    Graphs are evaluated exactly as written, whatever engine they are for. `journal` keeps what was measured.
    """

    def __init__(self, model: ir.Model, inputs: np.ndarray, journal: Journal) -> None:
        self.inputs = inputs
        self._journal = journal
        self._expected = self._outputs(model)

    def of(self, artifact: ir.Model) -> float:
        """Return the error of one artifact."""
        key = f"error/{len(self.inputs)}/{sha256_of(model_bytes(artifact))}"
        return self._journal.recall(key, lambda: [self._measured(artifact)])[0]

    def _measured(self, artifact: ir.Model) -> float:
        error = relative_l2(self._expected, self._outputs(artifact))
        return error if math.isfinite(error) else NOT_FINITE

    def _outputs(self, model: ir.Model) -> np.ndarray:
        runner = open_reference(model_bytes(model))
        try:
            starts = range(0, len(self.inputs), MICRO_BATCH)
            return np.concatenate(
                [runner.infer({INPUT: self.inputs[start : start + MICRO_BATCH]})[OUTPUT] for start in starts]
            )
        finally:
            runner.close()
