"""The work of one batch on a GPU: copies to the device, the engine, copies back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ran_deploy.errors import DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.trt_engine import TensorRtEngine

__all__ = ["Call", "Tensor"]


class Tensor:
    """Memory of one input or output, for the host and for the device.

    Where it is `mapped`, as on an integrated GPU, they are the same memory. Elsewhere a copy on the slot's stream runs
    beside the kernels of another slot, as it may from and to page-locked memory alone.
    """

    def __init__(self, size_bytes: int, owned: list[Any], *, mapped: bool) -> None:
        self.host = cuda.HostMemory(size_bytes)
        owned.append(self.host)
        self.copied = not mapped
        self.address = self.host.address
        if self.copied:
            memory = cuda.DeviceMemory(size_bytes)
            owned.append(memory)
            self.address = memory.address


class Call:
    """A batch of the shapes that `context` has now; it may run again for as long as the context keeps them.

    From the third time on it is launched as a CUDA graph, where the engine's work can be captured: TensorRT has to have
    run once with these shapes before. https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html
    """

    def __init__(
        self, engine: TensorRtEngine, context: Any, stream: cuda.Stream, tensors: Mapping[str, Tensor]
    ) -> None:
        self._engine, self._context, self._stream = engine, context, stream
        views = {
            spec.name: tensors[spec.name].host.view(shape_of(context, spec.name), spec.dtype)
            for spec in (*engine.inputs, *engine.outputs)
        }
        self.outputs = {spec.name: views[spec.name] for spec in engine.outputs}
        copied = {name: tensor.address for name, tensor in tensors.items() if tensor.copied}
        self._uploads = [(views[spec.name], copied[spec.name]) for spec in engine.inputs if spec.name in copied]
        self._downloads = [(copied[spec.name], views[spec.name]) for spec in engine.outputs if spec.name in copied]
        self._ran = False
        self._graph: cuda.Graph | None = None

    def queue(self) -> None:
        """Queue everything on the stream. Raises: DeviceError; part of it may be queued then."""
        if self._ran and self._graph is None and self._engine.captures:
            self._capture()
        if self._graph is not None:
            self._stream.launch(self._graph)
        else:
            self._queue_each()
        self._ran = True

    def close(self) -> None:
        """Release the graph, which nothing queued may use."""
        if self._graph is not None:
            self._graph.close()

    def _queue_each(self) -> None:
        for view, address in self._uploads:
            self._stream.upload(view, address)
        if not self._context.execute_async_v3(self._stream.handle):
            raise DeviceError(f"{self._engine.package} cannot run this batch: {self._engine.reason()}.")
        for address, view in self._downloads:
            self._stream.download(address, view)

    def _capture(self) -> None:
        """Capture the work; where that fails, it is queued call by call ever after."""
        try:
            with self._stream.captured() as graphs:
                self._queue_each()
        except DeviceError as exc:
            self._engine.stop_capturing(str(exc))
        else:
            self._graph = graphs[0]


def shape_of(context: Any, name: str) -> tuple[int, ...]:
    """Return the shape that an input or output has for the inputs' shapes as they are set."""
    return tuple(int(size) for size in context.get_tensor_shape(name))
