"""ONNX Runtime engines: the dialect graph, optimised once for this CPU and stored as ONNX."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ran_deploy.converters.builders import BuildOptions, Progress
from ran_deploy.errors import BuildError
from ran_deploy.vendors import import_onnxruntime, one_line

__all__ = ["OrtBuilder"]

# Its int32 bias scale (activation scale x weight scale) underflows where scales are FP16, and logits go wrong
# (seen with ONNX Runtime 1.32: off by 0.24).
DISABLED_OPTIMIZERS = ["WeightBiasQuantization"]


class OrtBuilder:
    """Runs every graph optimiser now, so that loading runs none: outputs are those of optimising at load, bit for bit.

    The result holds operators and layouts of this CPU's instruction set, so it is bound to it by its fingerprint.
    """

    def __init__(self) -> None:
        self._ort = import_onnxruntime()

    def build(self, graph: bytes, options: BuildOptions, progress: Progress | None = None) -> bytes:
        """Return the optimised graph. Raises: BuildError in one line if ONNX Runtime refuses `graph`."""
        del options  # one graph serves every batch, and precision is in the graph
        ort = self._ort
        with tempfile.TemporaryDirectory(prefix="ran-deploy-") as folder:
            path = Path(folder) / "engine.onnx"
            session = ort.SessionOptions()
            session.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            session.optimized_model_filepath = str(path)
            session.log_severity_level = 3  # it warns that the result is bound to this hardware: that is intended
            try:
                ort.InferenceSession(
                    graph,
                    session,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=DISABLED_OPTIMIZERS,
                    enable_fallback=0,  # its fallback prints
                )
                return path.read_bytes()
            except Exception as exc:  # its exceptions share no base class but this one
                raise BuildError(f"ONNX Runtime {ort.__version__} refuses the graph: {one_line(exc)}") from exc
