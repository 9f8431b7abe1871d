"""OpenVINO on the CPU."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.engine.openvino import unpack_openvino_engine
from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.errors import EngineMismatchError, InputError, RanDeployError
from ran_deploy.runtime.backends.host import cpu_instructions, host_platform
from ran_deploy.runtime.runner import TensorSpec
from ran_deploy.vendors import import_openvino, one_line

__all__ = ["OpenVinoRunner", "compiled_model"]


class OpenVinoRunner:
    """A compiled model and a pool of its requests: one request serves one call at a time."""

    def __init__(
        self,
        engine: bytes,
        *,
        threads: int = 0,
        traits: EngineTraits = NO_TRAITS,
        kernels: KeptFile | None = None,
    ) -> None:
        del traits, kernels  # its engines are compiled when they are built, and hold all they need
        self._model: Any = compiled_model(engine, threads)
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self._idle: deque[Any] = deque()  # append and pop are atomic

    @staticmethod
    def require() -> None:
        """Raises: BackendUnavailableError if openvino cannot be imported."""
        import_openvino()

    @staticmethod
    def fingerprint() -> dict[str, str]:
        """Return version, platform, instruction sets and the precisions OpenVINO has on this CPU."""
        openvino = import_openvino()
        capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return {
            "OpenVINO": openvino.__version__,
            "platform": host_platform(),
            "CPU instruction set": cpu_instructions(),
            "CPU precisions": " ".join(sorted(set(capabilities) & {"FP32", "FP16", "BF16", "INT8"})),
        }

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch. Raises: InputError if OpenVINO refuses the feeds."""
        model = self._model
        if model is None:
            raise RanDeployError("This runner is closed. Open the engine again.")
        try:
            request = self._idle.pop()
        except IndexError:
            request = model.create_infer_request()
        try:
            arrays = {spec.name: np.ascontiguousarray(feeds[spec.name]) for spec in self.inputs}
            results = request.infer(arrays, share_inputs=True, share_outputs=False)
            outputs = {spec.name: results[index] for index, spec in enumerate(self.outputs)}
        except RuntimeError as exc:
            raise InputError(f"OpenVINO cannot run this batch: {one_line(exc)}") from exc
        if self._model is not None:
            self._idle.append(request)
        return outputs

    def close(self) -> None:
        """Release the model and the idle requests; calls under way end first."""
        self._model = None
        self._idle.clear()


def compiled_model(engine: bytes, threads: int, **further: Any) -> Any:
    """Return the CompiledModel that `engine` holds, with `further` settings of OpenVINO's.

    Raises: EngineMismatchError if OpenVINO cannot load it.
    """
    openvino = import_openvino()
    blob, hint = unpack_openvino_engine(engine)
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        # Pinned, it waits for its cores while others are idle: ten times slower beside another busy process.
        "ENABLE_CPU_PINNING": False,
        **further,
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        return openvino.Core().import_model(io.BytesIO(blob), "CPU", settings)
    except RuntimeError as exc:
        raise EngineMismatchError(
            f"OpenVINO {openvino.__version__} cannot load this engine: {one_line(exc)} Build it again with ran-build."
        ) from exc


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(name=port.any_name, dtype=np.dtype(port.element_type.to_dtype()).name, shape=shape)
