"""TensorRT and TensorRT-RTX on an NVIDIA GPU: one runner for both packages, one call at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ran_deploy.errors import BackendUnavailableError, DeviceError, EngineMismatchError, RanDeployError, ShapeError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.host import host_platform
from ran_deploy.runtime.runner import TensorSpec
from ran_deploy.vendors import import_tensorrt, tensorrt_log

__all__ = ["TensorRtRtxRunner", "TensorRtRunner"]


class TensorRtRunner:
    """An engine, its execution context and device buffers for the largest batch of its profile."""

    package = "tensorrt"

    def __init__(self, engine: bytes, *, threads: int = 0, host_code: bool = False) -> None:
        del threads  # the work is the GPU's
        self.require()
        self._lock = threading.Lock()
        self._buffers: dict[str, cuda.Buffer] = {}
        self._stream: cuda.Stream | None = None
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        try:
            self._load(engine, host_code)
            self._allocate()
        except BaseException:
            self.close()
            raise

    @classmethod
    def require(cls) -> None:
        """Raises: BackendUnavailableError if the package, the CUDA binding, the driver or a GPU is missing."""
        import_tensorrt(cls.package)
        cuda.require_gpu()

    @classmethod
    def fingerprint(cls) -> dict[str, str]:
        """Return version, platform and, where there is one, the GPU: kernels were chosen on that very device."""
        parts = _version_and_platform(cls.package)
        try:
            cuda.require_gpu()
        except BackendUnavailableError:
            return parts
        device = cuda.current_device()
        return {**parts, "GPU": device.name, "compute capability": device.compute_capability}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch. Raises: ShapeError for a batch outside the profile, DeviceError if the GPU fails."""
        arrays = {spec.name: np.ascontiguousarray(feeds[spec.name]) for spec in self.inputs}
        with self._lock:
            if self._context is None or self._stream is None:
                raise RanDeployError("This runner is closed. Open the engine again.")
            for name, array in arrays.items():
                self._set_shape(name, array.shape)
                self._buffers[name].upload(array, self._stream)
            if not self._context.execute_async_v3(self._stream.handle):
                raise DeviceError(f"{self.package} cannot run this batch: {self._reason()}.")
            outputs = {spec.name: np.empty(self._shape(spec.name), spec.dtype) for spec in self.outputs}
            for name, array in outputs.items():
                self._buffers[name].download(array, self._stream)
            self._stream.synchronize()
        return outputs

    def close(self) -> None:
        """Release engine and device memory after the call under way; a second call does nothing."""
        with self._lock:
            self._context = self._engine = self._runtime = None  # in this order: each needs the next
            buffers, self._buffers = self._buffers, {}
            stream, self._stream = self._stream, None
            for buffer in buffers.values():
                buffer.close()
            if stream is not None:
                stream.close()

    def _load(self, engine: bytes, host_code: bool) -> None:
        trt = import_tensorrt(self.package)
        log = tensorrt_log(self.package)
        log.take_errors()
        self._runtime = trt.Runtime(log.trt_logger)
        self._runtime.engine_host_code_allowed = host_code
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        self._context = None if self._engine is None else self._engine.create_execution_context()
        if self._context is None:
            raise EngineMismatchError(
                f"{self.package} {trt.__version__} cannot load this engine: {self._reason()}. "
                "Build it on this machine with ran-build."
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(self._spec(trt, name) for name in names if is_input[name])
        self.outputs = tuple(self._spec(trt, name) for name in names if not is_input[name])

    def _spec(self, trt: Any, name: str) -> TensorSpec:
        shape = tuple(None if size == -1 else int(size) for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name=name, dtype=np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).name, shape=shape)

    def _allocate(self) -> None:
        self._stream = cuda.Stream()
        for spec in self.inputs:
            if None in spec.shape:
                _, _, largest = self._engine.get_tensor_profile_shape(spec.name, 0)
                self._set_shape(spec.name, tuple(largest))
        for spec in (*self.inputs, *self.outputs):
            size = int(np.prod(self._shape(spec.name))) * np.dtype(spec.dtype).itemsize
            self._buffers[spec.name] = buffer = cuda.Buffer(size)
            if not self._context.set_tensor_address(spec.name, buffer.pointer):
                raise DeviceError(f"{self.package} refuses the buffer of {spec.name!r}: {self._reason()}.")

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            smallest, _, largest = (tuple(each) for each in self._engine.get_tensor_profile_shape(name, 0))
            raise ShapeError(f"Input {name!r} has shape {shape}; this engine accepts {smallest} to {largest}.")

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def _reason(self) -> str:
        return tensorrt_log(self.package).take_errors() or "no reason given"


class TensorRtRtxRunner(TensorRtRunner):
    """Loading finishes the engine for this GPU, so it is bound to none."""

    package = "tensorrt_rtx"

    @classmethod
    def fingerprint(cls) -> dict[str, str]:
        """Return version and platform; works without a GPU."""
        return _version_and_platform(cls.package)


def _version_and_platform(package: str) -> dict[str, str]:
    return {package: import_tensorrt(package).__version__, "platform": host_platform()}
