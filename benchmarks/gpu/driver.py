"""Loading and launching kernels through the CUDA driver itself, libcuda, whichever Python binding is used beside it.

TensorRT does the same: it is handed a stream and addresses as numbers and works in the context that is current.
Functions and types: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__EXEC.html and group__CUDA__MODULE.html
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from ran_deploy.errors import BackendUnavailableError, DeviceError

PTX = Path(__file__).with_name("kernel.ptx")
KERNELS = ("weighted_sums", "logits_from_sums")
Argument = ctypes.c_uint32 | ctypes.c_uint64


def cuda_driver() -> ctypes.CDLL:
    """Return libcuda. Raises: BackendUnavailableError where no driver is installed."""
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        raise BackendUnavailableError(f"No NVIDIA driver can be used here: {exc}.") from exc


class Driver:
    """The kernels of kernel.ptx. They are loaded once in each context, and stay until the process ends.

    `launched` counts what the host launched; a CUDA graph launches by itself.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._functions: dict[int, dict[str, ctypes.c_void_p]] = {}
        self._lock = threading.Lock()
        self.launched = 0

    def launch(self, name: str, grid: tuple[int, int], threads: int, stream: int, *arguments: Argument) -> None:
        """Queue a kernel on a stream of the current context. Raises: DeviceError."""
        places = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        sizes = (ctypes.c_uint(size) for size in (*grid, 1, threads, 1, 1, 0))  # the last: shared memory beside its own
        self._call("cuLaunchKernel", self._function(name), *sizes, ctypes.c_void_p(stream), places, None)
        with self._lock:
            self.launched += 1

    def _function(self, name: str) -> ctypes.c_void_p:
        context = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(context))
        with self._lock:
            if (here := context.value or 0) not in self._functions:
                self._functions[here] = self._loaded()
            return self._functions[here][name]

    def _loaded(self) -> dict[str, ctypes.c_void_p]:
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX.read_bytes()))
        functions = {}
        for name in KERNELS:
            functions[name] = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(functions[name]), module, ctypes.c_char_p(name.encode()))
        return functions

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(text))
            raise DeviceError(f"{function} failed: {(text.value or b'unknown').decode()} ({status}).")
