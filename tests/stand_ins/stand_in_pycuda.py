"""A stand-in for `pycuda.driver` over the stand-in of a GPU: the names and calls the device layer uses.

Behaviour by https://documen.tician.de/pycuda/driver.html: nothing works before `init`; a context has to be on the
calling thread's stack; a thread that ends with one on its stack is a fault (the real one ends the process), as is a
context popped that is not there. tests/vendor_facts/pycuda_names.json holds the names against the real package.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
from stand_in_gpu import StandInGpu
from stand_in_memory import GpuError


def stand_in_pycuda(gpu: StandInGpu) -> types.ModuleType:
    """Return a module whose functions drive `gpu`."""
    module = types.ModuleType("stand-in for pycuda.driver")
    state = types.SimpleNamespace(ready=False)

    class Error(Exception):
        pass

    def called(name: str, *, context: bool = True) -> None:
        if not state.ready:
            raise Error(f"{name} failed: not initialized")
        if context and not stack():
            raise Error(f"{name} failed: invalid device context")
        try:
            gpu.entered(name)
        except GpuError as exc:
            raise Error(f"{name} failed: {exc}") from exc

    def done(name: str, function: Any, *arguments: Any) -> Any:
        called(name)
        try:
            return function(*arguments)
        except GpuError as exc:
            raise Error(f"{name} failed: {exc}") from exc

    def stack() -> list[int]:
        if not hasattr(gpu.local, "stack"):
            gpu.local.stack = []
        return gpu.local.stack

    class Context:
        def __init__(self, index: int) -> None:
            self.index = index

        def push(self) -> None:
            stack().append(self.index)
            gpu.device = self.index

        @staticmethod
        def pop() -> None:
            if not stack():
                gpu.fault("a context was popped from an empty stack")
                return
            stack().pop()
            gpu.local.device = stack()[-1] if stack() else 0

        @staticmethod
        def get_device() -> Device:
            called("cuCtxGetDevice")
            return Device(stack()[-1])

    class Device:
        def __init__(self, index: int) -> None:
            called("cuDeviceGet", context=False)
            if not 0 <= index < gpu.count:
                raise Error("cuDeviceGet failed: invalid device ordinal")
            self.index = index

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Device) and self.index == other.index

        __hash__ = None

        @staticmethod
        def count() -> int:
            called("cuDeviceGetCount", context=False)
            return gpu.count

        def name(self) -> str:
            return f"stand-in GPU {self.index}"

        def compute_capability(self) -> tuple[int, int]:
            return 8, 7

        def total_memory(self) -> int:
            return gpu.memory_bytes

        def get_attribute(self, attribute: str) -> int:
            return int(gpu.integrated) if attribute == "integrated" else 0

        def retain_primary_context(self) -> Context:
            return Context(self.index)

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self.handle = done("cuStreamCreate", gpu.create_stream)

        def synchronize(self) -> None:
            done("cuStreamSynchronize", gpu.synchronize, self.handle)

        def __del__(self) -> None:
            gpu.destroy_stream(self.handle)

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            self.address = done("cuMemAlloc", gpu.allocate, size)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            done("cuMemFree", gpu.free, self.address)

    class PagelockedHostAllocation:
        def __init__(self, size: int) -> None:
            self.block = None
            self.block = done("cuMemHostAlloc", gpu.allocate_host, size)
            self.__array_interface__ = self.block.data.__array_interface__

        def __del__(self) -> None:
            if self.block is not None and stack():
                self.free()

        def get_device_pointer(self) -> int:
            called("cuMemHostGetDevicePointer")
            return self.block.address

        def free(self) -> None:
            block, self.block = self.block, None
            done("cuMemFreeHost", gpu.free, block.address)

    def init() -> None:
        if gpu.count == 0:
            raise Error("cuInit failed: no CUDA-capable device is detected")
        state.ready = True

    def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        assert np.dtype(dtype) == np.uint8
        return np.asarray(PagelockedHostAllocation(shape))

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream) -> None:
        done("cuMemcpyHtoDAsync", gpu.copy_to_device, dest, src.ctypes.data, src.nbytes, stream.handle)

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream) -> None:
        done("cuMemcpyDtoHAsync", gpu.copy_to_host, dest.ctypes.data, src, dest.nbytes, stream.handle)

    def mem_get_info() -> tuple[int, int]:
        called("cuMemGetInfo")
        return gpu.memory_bytes - gpu.allocated(gpu.device), gpu.memory_bytes

    module.Context, module.Device, module.Stream, module.Error = Context, Device, Stream, Error
    module.DeviceAllocation, module.PagelockedHostAllocation = DeviceAllocation, PagelockedHostAllocation
    module.mem_alloc, module.pagelocked_empty, module.init = DeviceAllocation, pagelocked_empty, init
    module.memcpy_htod_async, module.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async
    module.mem_get_info, module.get_driver_version = mem_get_info, lambda: 12060
    module.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2, PORTABLE=1)
    module.device_attribute = types.SimpleNamespace(INTEGRATED="integrated")
    return module
