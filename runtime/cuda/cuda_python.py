"""CUDA through NVIDIA's cuda-python: `cuda.bindings.runtime`, or `cuda.cudart` in older releases.

Its functions return a tuple, status first.
Names and signatures: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime.cuda.binding import Device
from ran_deploy.vendors import one_line

__all__ = ["CudaPython"]


class CudaPython:
    """The CUDA runtime API. It works in each device's primary context, as TensorRT and PyTorch do."""

    def __init__(self) -> None:
        self._runtime = _imported("runtime", "cudart")
        self._driver = _imported("driver", "cuda")

    def device_count(self) -> int:
        return int(self._call("cudaGetDeviceCount"))

    def device(self, index: int) -> Device:
        properties = self._call("cudaGetDeviceProperties", index)
        driver = self._call("cudaDriverGetVersion")  # 1000 * major + 10 * minor
        return Device(
            name=properties.name.decode().rstrip("\0"),
            compute_capability=f"{properties.major}.{properties.minor}",
            memory_bytes=int(properties.totalGlobalMem),
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
            integrated=bool(properties.integrated),
        )

    def current_index(self) -> int:
        return int(self._call("cudaGetDevice"))

    @contextlib.contextmanager
    def current(self, index: int) -> Iterator[None]:
        before = self.current_index()
        self._call("cudaSetDevice", index)
        try:
            yield
        finally:
            # Setting a device that nothing has used would give it a context, which takes hundreds of megabytes.
            if before != index and self._has_context(before):
                self._call("cudaSetDevice", before)

    def free_and_total_bytes(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def create_stream(self) -> Any:
        # Non-blocking: it does not wait for the default stream of others, whose use would also spoil a capture.
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def stream_handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize(self, stream: Any) -> None:
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def allocate(self, size: int) -> Any:
        return self._call("cudaMalloc", size)

    def free(self, memory: Any) -> None:
        self._call("cudaFree", memory)

    def allocate_host(self, size: int) -> tuple[np.ndarray, int, Any]:
        pointer = int(self._call("cudaHostAlloc", size, self._runtime.cudaHostAllocMapped))
        try:
            address = int(self._call("cudaHostGetDevicePointer", pointer, 0))
        except DeviceError:
            self.free_host(pointer)
            raise
        array = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(pointer))
        return array, address, pointer

    def free_host(self, memory: Any) -> None:
        self._call("cudaFreeHost", memory)

    def copy_to_device(self, target: int, source: np.ndarray, stream: Any) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source.ctypes.data, source.nbytes, kind, stream)

    def copy_to_host(self, target: np.ndarray, source: int, stream: Any) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, source, target.nbytes, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        # Of this thread alone: others may allocate meanwhile, which the global mode would forbid them.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def _has_context(self, index: int) -> bool:
        _, _, active = self._driver.cuDevicePrimaryCtxGetState(index)
        return bool(active)

    def _call(self, function: str, *arguments: Any) -> Any:
        """Call the runtime; return what follows the status: nothing, one value or a tuple. Raises: DeviceError."""
        cuda = self._runtime
        try:
            status, *values = getattr(cuda, function)(*arguments)
        except RuntimeError as exc:  # cuda-python before 12.9 where no driver is
            raise DeviceError(f"{function} failed: {one_line(exc)}.") from exc
        if status != cuda.cudaError_t.cudaSuccess:
            _, text = cuda.cudaGetErrorString(status)
            raise DeviceError(f"{function} failed: {status.name} ({text.decode()}).")
        return values[0] if len(values) == 1 else tuple(values) or None


def _imported(name: str, older: str) -> ModuleType:
    try:
        return importlib.import_module(f"cuda.bindings.{name}")
    except ModuleNotFoundError as exc:
        if exc.name not in ("cuda", "cuda.bindings"):
            raise  # it is there but incomplete: the older name would only hide why
        return importlib.import_module(f"cuda.{older}")
