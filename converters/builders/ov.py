"""OpenVINO engines: the dialect graph, compiled for this CPU and exported."""

from __future__ import annotations

from typing import Any

from ran_deploy.converters.builders import BuildOptions, Progress
from ran_deploy.engine.openvino import pack_openvino_engine
from ran_deploy.errors import BuildError
from ran_deploy.precision import Precision
from ran_deploy.vendors import import_openvino, one_line

__all__ = ["OpenVinoBuilder"]


class OpenVinoBuilder:
    """Compiles for one request at a time; what is float in an FP16 or INT8 graph runs in BF16 where the CPU has it."""

    def __init__(self) -> None:
        self._openvino = import_openvino()

    def build(self, graph: bytes, options: BuildOptions, progress: Progress | None = None) -> bytes:
        """Return the engine. Raises: BuildError in one line if OpenVINO refuses `graph`."""
        core = self._openvino.Core()
        hint = _precision_hint(options.precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        try:
            compiled: Any = core.compile_model(
                core.read_model(graph), "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
            )
            blob = compiled.export_model().getvalue()
        except RuntimeError as exc:
            raise BuildError(f"OpenVINO {self._openvino.__version__} refuses the graph: {one_line(exc)}") from exc
        return pack_openvino_engine(blob, hint)


def _precision_hint(precision: Precision, capabilities: list[str]) -> str:
    return "bf16" if precision is not Precision.FP32 and "BF16" in capabilities else "f32"
