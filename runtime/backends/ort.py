"""ONNX Runtime on the CPU: engines, and the exact evaluation of any ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.errors import BackendUnavailableError, EngineMismatchError, InputError, RanDeployError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.host import cpu_instructions, host_platform
from ran_deploy.runtime.runner import Runner, TensorSpec
from ran_deploy.vendors import import_onnxruntime, one_line

__all__ = ["OrtRunner", "open_emulation", "open_reference", "open_session", "session_options"]

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
}


class OrtRunner:
    """Runs a graph as it is: engines are optimised when they are built, and reference graphs must not be."""

    def __init__(
        self,
        engine: bytes,
        *,
        threads: int = 0,
        traits: EngineTraits = NO_TRAITS,
        kernels: KeptFile | None = None,
    ) -> None:
        del traits, kernels  # its engines are compiled when they are built, and hold all they need
        self._session: Any = open_session(engine, session_options(threads))
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())

    @staticmethod
    def require() -> None:
        """Raises: BackendUnavailableError if onnxruntime cannot be imported."""
        import_onnxruntime()

    @staticmethod
    def fingerprint() -> dict[str, str]:
        """Return version, platform and instruction sets: kernels and blocked layouts are chosen at build."""
        return {
            "ONNX Runtime": import_onnxruntime().__version__,
            "platform": host_platform(),
            "CPU instruction set": cpu_instructions(),
        }

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch. Raises: InputError if ONNX Runtime refuses the feeds."""
        session = self._session
        if session is None:
            raise RanDeployError("This runner is closed. Open the engine again.")
        names = [spec.name for spec in self.outputs]
        try:
            outputs = session.run(names, {spec.name: feeds[spec.name] for spec in self.inputs})
        except Exception as exc:
            raise InputError(f"ONNX Runtime cannot run this batch: {one_line(exc)}") from exc
        return dict(zip(names, outputs, strict=True))

    def close(self) -> None:
        """Release the session; calls under way end first."""
        self._session = None


def session_options(threads: int) -> Any:
    """Return the options of a session that runs a graph as it is."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal: errors arrive as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to decoding
    return options


def open_session(engine: bytes, options: Any) -> Any:
    """Return an InferenceSession on the CPU. Raises: EngineMismatchError if ONNX Runtime cannot load `engine`."""
    ort = import_onnxruntime()
    try:
        return ort.InferenceSession(
            engine,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # its fallback prints
        )
    except Exception as exc:  # its exceptions share no base class but this one
        raise EngineMismatchError(
            f"ONNX Runtime {ort.__version__} cannot load this engine: {one_line(exc).rstrip('.')}. Build it again with "
            "ran-build."
        ) from exc


def open_reference(graph: bytes, threads: int = 0) -> Runner:
    """Return a runner that evaluates any ONNX graph exactly as written: every node, in order, nothing fused.

    Emulates other engines' dialects on the CPU, runs reference graphs and graphs with many outputs.
    Raises: EngineMismatchError if ONNX Runtime cannot load `graph`.
    """
    return OrtRunner(graph, threads=threads)


def open_emulation(graph: bytes, dialect: str, precision: Precision) -> Runner:
    """Return a runner that evaluates a dialect's graph in the place of its engine.

    Raises: BackendUnavailableError where this ONNX Runtime does it wrongly, EngineMismatchError if it cannot load it.
    """
    if dialect == "tensorrt" and precision is Precision.INT8:
        _require_fp16_rounding()
    return open_reference(graph)


def _require_fp16_rounding() -> None:
    """Raise BackendUnavailableError where graphs with FP16 scales, TensorRT's INT8 dialect, are evaluated wrongly.

    Before 1.30 QuantizeLinear with such a scale cut off where it should round: 1.5 became 1.
    """
    version = import_onnxruntime().__version__
    if tuple(int(part) for part in version.split(".")[:2]) < (1, 30):
        raise BackendUnavailableError(
            f"ONNX Runtime {version} evaluates TensorRT's INT8 graph wrongly; 1.30 or newer is needed, and with it "
            "Python 3.11. Use that, or leave TensorRT out: --backend openvino --backend onnxruntime."
        )


def _spec(value: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return TensorSpec(name=value.name, dtype=_DTYPES.get(value.type, value.type), shape=shape)
