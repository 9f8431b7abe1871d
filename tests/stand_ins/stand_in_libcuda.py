# ruff: noqa: N802 - everything has the name it has in CUDA
"""A stand-in for libcuda as ctypes loads it: modules of PTX, and kernels that run late on a stand-in's stream.

Functions, arguments and error numbers are those of https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
from stand_in_gpu import StandInGpu
from stand_in_memory import GpuError
from stand_in_ptx import Grid, Kernel, parse
from stand_in_stream import Operation

ERRORS = {"INVALID_VALUE": 1, "INVALID_CONTEXT": 201, "INVALID_PTX": 218, "INVALID_HANDLE": 400, "NOT_FOUND": 500}
ERRORS |= {"LAUNCH_FAILED": 719}
VALUES = {"u32": ctypes.c_uint32, "u64": ctypes.c_uint64}


class StandInLibcuda:
    def __init__(self, gpu: StandInGpu) -> None:
        self.gpu = gpu
        self._handles = itertools.count(1)
        self._modules: dict[int, tuple[int, dict[str, Kernel]]] = {}  # device, kernels
        self._functions: dict[int, tuple[int, Kernel]] = {}

    def cuCtxGetCurrent(self, context: Any) -> int:
        context._obj.value = self.gpu.device + 1 if self._has_context() else None
        return 0

    def cuModuleLoadData(self, module: Any, image: ctypes.c_char_p) -> int:
        if not self._has_context():
            return ERRORS["INVALID_CONTEXT"]
        kernels = parse((image.value or b"").decode())
        if not kernels:
            return ERRORS["INVALID_PTX"]
        module._obj.value = next(self._handles)
        self._modules[module._obj.value] = (self.gpu.device, kernels)
        return 0

    def cuModuleGetFunction(self, function: Any, module: ctypes.c_void_p, name: ctypes.c_char_p) -> int:
        device, kernels = self._modules[module.value or 0]
        if (key := (name.value or b"").decode()) not in kernels:
            return ERRORS["NOT_FOUND"]
        function._obj.value = next(self._handles)
        self._functions[function._obj.value] = (device, kernels[key])
        return 0

    def cuLaunchKernel(self, function: ctypes.c_void_p, *arguments: Any) -> int:
        gx, gy, gz, threads, by, bz, shared_bytes = (each.value for each in arguments[:7])
        stream, places, extra = arguments[7:]
        device, kernel = self._functions.get(function.value or 0, (-1, None))
        if kernel is None or device != self.gpu.device:
            return ERRORS["INVALID_HANDLE"]
        if (gz, by, bz, shared_bytes, extra) != (1, 1, 1, 0, None) or min(gx, gy, threads) < 1 or threads > 1024:
            return ERRORS["INVALID_VALUE"]
        given = {
            name: VALUES[kind].from_address(place).value
            for (name, kind), place in zip(kernel.parameters, places, strict=True)
        }
        try:
            self.gpu.entered("cuLaunchKernel")
            self.gpu.enqueue(stream.value or 0, self._operation(kernel, (gx, gy), threads, given))
        except GpuError:
            return ERRORS["LAUNCH_FAILED"]
        return 0

    def cuGetErrorName(self, error: int, text: Any) -> int:
        names = {number: name for name, number in ERRORS.items()}
        text._obj.value = f"CUDA_ERROR_{names[error]}".encode()
        return 0

    def _operation(self, kernel: Kernel, blocks: tuple[int, int], threads: int, given: dict[str, int]) -> Operation:
        def run() -> None:
            with self.gpu.busy():
                self.gpu.entered("kernel")
                Grid(blocks, threads, given, Words(self.gpu)).run(kernel)

        reads, writes = (
            tuple((given[name], self._size_from(given[name])) for name in sorted(names))
            for names in (kernel.reads, kernel.writes)
        )
        return Operation(run, reads, writes)

    def _size_from(self, address: int) -> int:
        """Return the bytes from there to the end of that memory."""
        block = self.gpu.block(address, 1)
        return 1 if block is None else block.address + block.data.nbytes - address

    def _has_context(self) -> bool:
        return self.gpu.device in self.gpu.used_devices


class Words:
    """Memory of the stand-in, for many threads at once; all of them within one piece of it."""

    def __init__(self, gpu: StandInGpu) -> None:
        self._gpu = gpu

    def load(self, addresses: np.ndarray, dtype: type) -> np.ndarray:
        place, size = self._span(addresses, dtype)
        return self._gpu.read(place, size).view(dtype)[self._index(addresses, dtype)]

    def store(self, addresses: np.ndarray, values: np.ndarray) -> None:
        place, size = self._span(addresses, values.dtype)
        self._gpu.read(place, size).view(values.dtype)[self._index(addresses, values.dtype)] = values

    def _span(self, addresses: np.ndarray, dtype: Any) -> tuple[int, int]:
        size = np.dtype(dtype).itemsize
        return int(addresses.min()), int(addresses.max() - addresses.min()) + size

    def _index(self, addresses: np.ndarray, dtype: Any) -> np.ndarray:
        size = np.uint64(np.dtype(dtype).itemsize)
        assert not (addresses % size).any(), "an address that is not aligned"
        return (addresses - addresses.min()) // size
