"""A thin device layer over NVIDIA's CUDA runtime: device, stream, buffer, each call checked.

The binding is cuda-python: `cuda.bindings.runtime`, or `cuda.cudart` in older releases. Its functions return a tuple,
status first. Names and signatures: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.vendors import one_line

__all__ = ["Buffer", "Device", "Stream", "current_device", "require_gpu", "used_bytes"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU; `driver` is the highest CUDA version its driver supports, as in 13.0."""

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str


@functools.cache
def _binding() -> ModuleType:
    try:
        try:
            return importlib.import_module("cuda.bindings.runtime")
        except ModuleNotFoundError as exc:
            if exc.name not in ("cuda", "cuda.bindings"):
                raise  # it is there but incomplete: the older name would only hide why
            return importlib.import_module("cuda.cudart")
    except (ImportError, OSError, RuntimeError) as exc:  # the last two: shared libraries that do not load
        raise BackendUnavailableError(
            f"Cannot import cuda.bindings ({one_line(exc)}). It needs an NVIDIA driver and "
            "pip install 'ran-deploy[tensorrt]' or another cuda-python of that driver's CUDA version."
        ) from exc


def _call(function: str, *arguments: Any) -> Any:
    """Call the runtime; return what follows the status: nothing, one value or a tuple. Raises: DeviceError."""
    cuda = _binding()
    try:
        status, *values = getattr(cuda, function)(*arguments)
    except RuntimeError as exc:  # cuda-python before 12.9 where no driver is
        raise DeviceError(f"{function} failed: {one_line(exc)}.") from exc
    if status != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(status)
        raise DeviceError(f"{function} failed: {status.name} ({text.decode()}).")
    return values[0] if len(values) == 1 else tuple(values) or None


def require_gpu() -> None:
    """Raises: BackendUnavailableError if the binding, the driver or a GPU is missing."""
    try:
        count = _call("cudaGetDeviceCount")
    except DeviceError as exc:
        raise BackendUnavailableError(f"No NVIDIA GPU can be used here: {exc}") from exc
    if count == 0:
        raise BackendUnavailableError("No NVIDIA GPU can be used here: the driver lists none.")


def current_device() -> Device:
    """Return the device that this thread uses. Raises: DeviceError, BackendUnavailableError."""
    properties = _call("cudaGetDeviceProperties", _call("cudaGetDevice"))
    driver = _call("cudaDriverGetVersion")  # 1000 * major + 10 * minor
    return Device(
        name=properties.name.decode().rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=int(properties.totalGlobalMem),
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
    )


def used_bytes() -> int:
    """Return the memory in use on this thread's device, by all processes. Raises: DeviceError."""
    free, total = _call("cudaMemGetInfo")
    return int(total) - int(free)


class Stream:
    """A CUDA stream: what is queued on it runs in order."""

    def __init__(self) -> None:
        self._stream: Any = _call("cudaStreamCreate")

    @property
    def handle(self) -> int:
        """The stream as TensorRT takes it."""
        return int(self._stream)

    def synchronize(self) -> None:
        """Wait until everything queued is done. Raises: DeviceError for what failed on the way."""
        _call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Destroy the stream; a second call does nothing."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            _call("cudaStreamDestroy", stream)


class Buffer:
    """Device memory of a fixed size."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._pointer: int | None = int(_call("cudaMalloc", max(size_bytes, 1)))

    @property
    def pointer(self) -> int:
        """The device address. Not after `close`."""
        assert self._pointer is not None
        return self._pointer

    def upload(self, array: np.ndarray, stream: Stream) -> None:
        """Queue a copy of a C-contiguous `array` to the device; keep it unchanged until the stream is synchronized."""
        self._copy(self.pointer, array.ctypes.data, array, "cudaMemcpyHostToDevice", stream)

    def download(self, array: np.ndarray, stream: Stream) -> None:
        """Queue a copy of the buffer's beginning into a C-contiguous `array`: there once the stream is synchronized."""
        self._copy(array.ctypes.data, self.pointer, array, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, target: int, source: int, array: np.ndarray, kind: str, stream: Stream) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= self.size_bytes
        _call("cudaMemcpyAsync", target, source, array.nbytes, getattr(_binding().cudaMemcpyKind, kind), stream.handle)

    def close(self) -> None:
        """Free the memory; a second call does nothing."""
        if self._pointer is not None:
            pointer, self._pointer = self._pointer, None
            _call("cudaFree", pointer)
