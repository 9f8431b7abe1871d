# ruff: noqa: N802, N816 - everything has the name it has in CUDA
"""A stand-in for `cuda.bindings.runtime` over the stand-in of a GPU: the functions the device layer calls.

Names, order of arguments and what comes back (a tuple, status first) are those of
https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html; test_stand_ins.py holds the names against
the installed binding.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable
from typing import Any

from stand_in_gpu import StandInGpu
from stand_in_memory import GpuError

NAMES = ("Success", "InvalidValue", "MemoryAllocation", "InvalidDevice", "InvalidResourceHandle", "IllegalAddress")
NAMES += ("IllegalState", "StreamCaptureUnsupported", "StreamCaptureInvalidated", "LaunchFailure", "NotSupported")
NAMES += ("InsufficientDriver", "NoDevice")
cudaError_t = enum.IntEnum(
    "cudaError_t", {f"cudaError{n}" if n != "Success" else "cudaSuccess": i for i, n in enumerate(NAMES)}
)
cudaMemcpyKind = enum.IntEnum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
cudaStreamCaptureMode = enum.IntEnum(
    "cudaStreamCaptureMode",
    {f"cudaStreamCaptureMode{n}": i for i, n in enumerate(("Global", "ThreadLocal", "Relaxed"))},
)


class Handle:
    """An object of CUDA, as the binding returns it: int() is its address."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


def stand_in_runtime(gpu: StandInGpu) -> types.ModuleType:
    """Return a module whose functions drive `gpu`."""
    module = types.ModuleType("stand-in for cuda.bindings.runtime")

    def offered(function: Callable[..., Any]) -> None:
        def call(*arguments: Any) -> tuple[Any, ...]:
            try:
                gpu.entered(function.__name__)
                value = function(*arguments)
            except GpuError as exc:
                results = function.__annotations__["return"] not in (None, "None")
                return (cudaError_t[f"cudaError{exc}"], *([None] if results else []))
            return (cudaError_t.cudaSuccess,) if value is None else (cudaError_t.cudaSuccess, value)

        setattr(module, function.__name__, call)

    @offered
    def cudaGetDeviceCount() -> int:
        return gpu.count

    @offered
    def cudaGetDevice() -> int:
        return gpu.device

    @offered
    def cudaSetDevice(device: int) -> None:
        gpu.device = device

    @offered
    def cudaGetDeviceProperties(device: int) -> Any:
        if not 0 <= device < gpu.count:
            raise GpuError("InvalidDevice")
        return types.SimpleNamespace(
            name=f"stand-in GPU {device}".encode().ljust(256, b"\0"),
            major=8,
            minor=7,
            totalGlobalMem=gpu.memory_bytes,
            integrated=int(gpu.integrated),
        )

    @offered
    def cudaDriverGetVersion() -> int:
        return 12060

    @offered
    def cudaStreamCreateWithFlags(flags: int) -> Handle:
        return Handle(gpu.create_stream())

    @offered
    def cudaStreamCreate() -> Handle:
        return Handle(gpu.create_stream())

    @offered
    def cudaStreamDestroy(stream: Any) -> None:
        gpu.destroy_stream(int(stream))

    @offered
    def cudaStreamSynchronize(stream: Any) -> None:
        gpu.synchronize(int(stream))

    @offered
    def cudaMalloc(size: int) -> int:
        return gpu.allocate(size)

    @offered
    def cudaFree(pointer: int) -> None:
        gpu.free(pointer)

    @offered
    def cudaHostAlloc(size: int, flags: int) -> int:
        return gpu.allocate_host(size).host_address

    @offered
    def cudaFreeHost(pointer: int) -> None:
        block = gpu.host_block(pointer)
        gpu.free(block.address if block is not None else -1)

    @offered
    def cudaHostGetDevicePointer(pointer: int, flags: int) -> int:
        block = gpu.host_block(pointer)
        if block is None:
            raise GpuError("InvalidValue")
        return block.address

    @offered
    def cudaMemcpyAsync(target: int, source: int, count: int, kind: int, stream: Any) -> None:
        copy = gpu.copy_to_device if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else gpu.copy_to_host
        copy(target, source, count, int(stream))

    @offered
    def cudaMemGetInfo() -> tuple[int, int]:
        return gpu.memory_bytes - gpu.allocated(gpu.device), gpu.memory_bytes

    @offered
    def cudaStreamBeginCapture(stream: Any, mode: Any) -> None:
        gpu.begin_capture(int(stream), mode.name.removeprefix("cudaStreamCaptureMode"))

    @offered
    def cudaStreamEndCapture(stream: Any) -> Handle:
        return Handle(gpu.end_capture(int(stream)))

    @offered
    def cudaGraphInstantiate(graph: Any, flags: int) -> Handle:
        return Handle(gpu.instantiate(int(graph)))

    @offered
    def cudaGraphLaunch(executable: Any, stream: Any) -> None:
        gpu.launch(int(executable), int(stream))

    @offered
    def cudaGraphDestroy(graph: Any) -> None:
        del gpu.graphs[int(graph)]

    @offered
    def cudaGraphExecDestroy(executable: Any) -> None:
        del gpu.executables[int(executable)]

    def cudaGetErrorString(error: Any) -> tuple[Any, bytes]:
        return cudaError_t.cudaSuccess, error.name.removeprefix("cudaError").lower().encode()

    module.cudaGetErrorString = cudaGetErrorString
    module.cudaMemGetInfo = flattened(module.cudaMemGetInfo)
    module.cudaError_t, module.cudaMemcpyKind = cudaError_t, cudaMemcpyKind
    module.cudaStreamCaptureMode = cudaStreamCaptureMode
    module.cudaStreamNonBlocking, module.cudaHostAllocMapped, module.cudaHostAllocPortable = 1, 2, 1
    return module


def flattened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what comes back as (status, pair) as (status, first, second)."""

    def call() -> tuple[Any, ...]:
        status, *values = function()
        return (status, *values[0]) if values and values[0] else (status, None, None)

    return call


def stand_in_driver(gpu: StandInGpu) -> types.ModuleType:
    """Return a module in the place of `cuda.bindings.driver`, of which one function is used."""
    module = types.ModuleType("stand-in for cuda.bindings.driver")
    module.cuDevicePrimaryCtxGetState = lambda device: (0, 0, int(device in gpu.used_devices))
    return module
