"""CUDA through pycuda, which wraps the driver API: https://documen.tician.de/pycuda/driver.html.

It works in each device's primary context, which is the one that the CUDA runtime inside TensorRT uses; a context of its
own, as `pycuda.autoinit` makes, would have other memory. A context is pushed only while we work in it: pycuda ends the
process if a thread leaves one on its stack. It cannot capture graphs.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime.cuda.binding import Device
from ran_deploy.vendors import one_line

__all__ = ["PyCuda"]

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h, which pycuda does not name


class PyCuda:
    """pycuda's driver API. Its streams are destroyed when the last reference goes, with the device current."""

    def __init__(self) -> None:
        self._cuda: Any = importlib.import_module("pycuda.driver")
        self._lock = threading.Lock()
        self._contexts: dict[int, Any] = {}

    def device_count(self) -> int:
        with self._checked():
            self._cuda.init()
            return int(self._cuda.Device.count())

    def device(self, index: int) -> Device:
        with self._checked():
            self._cuda.init()
            device = self._cuda.Device(index)
            major, minor = device.compute_capability()
            driver = self._cuda.get_driver_version()
            return Device(
                name=device.name(),
                compute_capability=f"{major}.{minor}",
                memory_bytes=int(device.total_memory()),
                driver=f"{driver // 1000}.{driver % 1000 // 10}",
                integrated=bool(device.get_attribute(self._cuda.device_attribute.INTEGRATED)),
            )

    def current_index(self) -> int:
        count = self.device_count()
        try:
            here = self._cuda.Context.get_device()
        except self._cuda.Error:  # no context: as for the CUDA runtime, the first device
            return 0
        return next(index for index in range(count) if self._cuda.Device(index) == here)

    @contextlib.contextmanager
    def current(self, index: int) -> Iterator[None]:
        with self._checked():
            context = self._context(index)
            context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def free_and_total_bytes(self) -> tuple[int, int]:
        with self._checked():
            free, total = self._cuda.mem_get_info()
            return int(free), int(total)

    def create_stream(self) -> Any:
        with self._checked():
            return self._cuda.Stream(NON_BLOCKING)

    def stream_handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize(self, stream: Any) -> None:
        with self._checked():
            stream.synchronize()

    def destroy_stream(self, stream: Any) -> None:
        del stream

    def allocate(self, size: int) -> Any:
        with self._checked():
            return self._cuda.mem_alloc(size)

    def free(self, memory: Any) -> None:
        with self._checked():
            memory.free()

    def allocate_host(self, size: int) -> tuple[np.ndarray, int, Any]:
        with self._checked():
            array = self._cuda.pagelocked_empty(size, np.uint8, mem_flags=self._cuda.host_alloc_flags.DEVICEMAP)
            return array, int(array.base.get_device_pointer()), array.base

    def free_host(self, memory: Any) -> None:
        with self._checked():
            memory.free()

    def copy_to_device(self, target: int, source: np.ndarray, stream: Any) -> None:
        with self._checked():
            self._cuda.memcpy_htod_async(target, source, stream)

    def copy_to_host(self, target: np.ndarray, source: int, stream: Any) -> None:
        with self._checked():
            self._cuda.memcpy_dtoh_async(target, source, stream)

    def begin_capture(self, stream: Any) -> None:
        raise DeviceError("pycuda cannot capture CUDA graphs; cuda-python can.")

    def end_capture(self, stream: Any) -> Any:
        raise NotImplementedError  # nothing was begun

    def launch(self, graph: Any, stream: Any) -> None:
        raise NotImplementedError

    def destroy_graph(self, graph: Any) -> None:
        raise NotImplementedError

    def _context(self, index: int) -> Any:
        with self._lock:
            if index not in self._contexts:
                self._cuda.init()
                self._contexts[index] = self._cuda.Device(index).retain_primary_context()
            return self._contexts[index]

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Turn pycuda's errors, which begin with the name of the call, into a DeviceError."""
        try:
            yield
        except self._cuda.Error as exc:
            raise DeviceError(f"{one_line(exc)}.") from exc
