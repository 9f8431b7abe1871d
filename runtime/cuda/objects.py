"""Streams, memory and graphs that close once and only once, of the device that is current when they are made."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime.cuda.binding import binding

__all__ = ["DeviceMemory", "Graph", "HostMemory", "Stream", "release"]

logger = logging.getLogger(__name__)


class Closable(Protocol):
    def close(self) -> None: ...


def release(objects: list[Closable]) -> None:
    """Close and forget the objects, the last made first; one that fails is a line in the log and keeps no other."""
    while objects:
        try:
            objects.pop().close()
        except DeviceError as exc:
            logger.warning("the GPU did not take something back: %s", exc)


class Stream:
    """A CUDA stream: what is queued on it runs in order, beside other streams."""

    def __init__(self) -> None:
        self._stream: Any = binding().create_stream()

    @property
    def handle(self) -> int:
        """The stream as TensorRT takes it."""
        return binding().stream_handle(self._stream)

    def synchronize(self) -> None:
        """Wait until everything queued is done. Raises: DeviceError for what failed on the way."""
        binding().synchronize(self._stream)

    def upload(self, source: np.ndarray, target: int) -> None:
        """Queue a copy of page-locked memory to a device address; the source may not change until it is done."""
        binding().copy_to_device(target, source, self._stream)

    def download(self, source: int, target: np.ndarray) -> None:
        """Queue a copy from a device address into page-locked memory: there once the stream is synchronized."""
        binding().copy_to_host(target, source, self._stream)

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[Graph]]:
        """Capture what is queued meanwhile instead of running it; the list then holds the graph.

        Raises: DeviceError if something cannot be captured. In any case the stream is as before.
        """
        found: list[Graph] = []
        binding().begin_capture(self._stream)
        try:
            yield found
        except BaseException:
            with contextlib.suppress(DeviceError):
                binding().destroy_graph(binding().end_capture(self._stream))
            raise
        found.append(Graph(binding().end_capture(self._stream)))

    def launch(self, graph: Graph) -> None:
        """Queue a captured graph."""
        binding().launch(graph.executable, self._stream)

    def close(self) -> None:
        """Wait for what is queued, then destroy the stream; a second call does nothing."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            try:
                binding().synchronize(stream)
            finally:
                binding().destroy_stream(stream)


class DeviceMemory:
    """Memory of the device of a fixed size."""

    def __init__(self, size_bytes: int) -> None:
        self._memory: Any = binding().allocate(max(size_bytes, 1))
        self.address = int(self._memory)

    def close(self) -> None:
        """Free the memory, which nothing queued may use; a second call does nothing."""
        if self._memory is not None:
            memory, self._memory = self._memory, None
            binding().free(memory)


class HostMemory:
    """Page-locked memory of the host, uint8 (size,), that the device reaches at `address` without a copy."""

    def __init__(self, size_bytes: int) -> None:
        self.array: np.ndarray
        self.array, self.address, self._memory = binding().allocate_host(max(size_bytes, 1))

    def view(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return the beginning as an array. Not after `close`."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.array[:size].view(dtype).reshape(shape)

    def close(self) -> None:
        """Free the memory, which nothing queued may use; a second call does nothing."""
        if self._memory is not None:
            memory, self._memory = self._memory, None
            del self.array
            binding().free_host(memory)


class Graph:
    """What was captured of a stream, ready to be launched again and again."""

    def __init__(self, executable: Any) -> None:
        self.executable: Any = executable

    def close(self) -> None:
        """Destroy it, which nothing queued may use; a second call does nothing."""
        if self.executable is not None:
            executable, self.executable = self.executable, None
            binding().destroy_graph(executable)
