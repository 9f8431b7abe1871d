"""What one batch needs on its way through a GPU, so that several are under way at once."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.trt_engine import TensorRtEngine
from ran_deploy.runtime.backends.trt_profiles import Profile, Shapes

__all__ = ["Slot"]


class Tensor:
    """Memory of one input or output, for the host and for the device.

    On an integrated GPU they are the same memory. Elsewhere a copy on the slot's stream runs beside the kernels of
    another slot, as it may from and to page-locked memory alone.
    """

    def __init__(self, size_bytes: int, owned: list[Any], *, integrated: bool) -> None:
        self.host = cuda.HostMemory(size_bytes)
        owned.append(self.host)
        self.copied = not integrated
        self.address = self.host.address
        if self.copied:
            memory = cuda.DeviceMemory(size_bytes)
            owned.append(memory)
            self.address = memory.address


class Slot:
    """A stream, memory for the engine's largest batch, and one execution context for each profile in use.

    One call at a time. Everything happens on the calling thread's device, which has to be the engine's.
    """

    def __init__(self, engine: TensorRtEngine, *, integrated: bool) -> None:
        self._engine = engine
        self._owned: list[Any] = []
        self._tensors: dict[str, Tensor] = {}
        self._contexts: dict[int, Any] = {}
        try:
            self._allocate(integrated)
        except BaseException:
            self.close()
            raise

    def infer(self, arrays: Mapping[str, np.ndarray], profile: Profile) -> dict[str, np.ndarray]:
        """Run one batch that `profile` takes. Raises: DeviceError; nothing is in flight after it."""
        shapes = {name: array.shape for name, array in arrays.items()}
        for spec in self._engine.inputs:
            array = arrays[spec.name]
            np.copyto(self._tensors[spec.name].host.view(array.shape, spec.dtype), array)
        try:
            outputs = self._queue(profile, shapes)
            self._stream.synchronize()
        except BaseException:
            self._drain()
            raise
        return {name: array.copy() for name, array in outputs.items()}

    def close(self) -> None:
        """Release everything, whatever is in flight; a second call does nothing."""
        if self._owned:
            self._drain()
        self._contexts.clear()
        self._tensors.clear()
        cuda.release(self._owned)

    def _queue(self, profile: Profile, shapes: Shapes) -> dict[str, np.ndarray]:
        """Queue a batch; return views of where its outputs will be."""
        context = self._context(profile, shapes)
        views = {
            spec.name: self._tensors[spec.name].host.view(_shape(context, spec.name), spec.dtype)
            for spec in (*self._engine.inputs, *self._engine.outputs)
        }
        outputs = {spec.name: views[spec.name] for spec in self._engine.outputs}
        for spec in self._engine.inputs:
            if self._tensors[spec.name].copied:
                self._stream.upload(views[spec.name], self._tensors[spec.name].address)
        if not context.execute_async_v3(self._stream.handle):
            raise DeviceError(f"{self._engine.package} cannot run this batch: {self._engine.reason()}.")
        for name, view in outputs.items():
            if self._tensors[name].copied:
                self._stream.download(self._tensors[name].address, view)
        return outputs

    def _context(self, profile: Profile, shapes: Shapes) -> Any:
        """Return the profile's context with `shapes` set."""
        context = self._contexts.get(profile.index)
        if context is None:
            context = self._contexts[profile.index] = self._new_context(profile)
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise DeviceError(f"{self._engine.package} refuses {name!r} of {shape}: {self._engine.reason()}.")
        return context

    def _new_context(self, profile: Profile) -> Any:
        context = self._engine.new_context()
        context.set_device_memory(self._scratch.address, self._engine.scratch_bytes)
        if not context.set_optimization_profile_async(profile.index, self._stream.handle):
            raise DeviceError(f"{self._engine.package} refuses profile {profile.index}: {self._engine.reason()}.")
        self._bind(context)
        return context

    def _bind(self, context: Any) -> None:
        for name, tensor in self._tensors.items():
            if not context.set_tensor_address(name, tensor.address):
                raise DeviceError(f"{self._engine.package} refuses the memory of {name!r}: {self._engine.reason()}.")

    def _allocate(self, integrated: bool) -> None:
        self._stream = cuda.Stream()
        self._owned.append(self._stream)
        # The contexts share it: they run one after the other, on one stream.
        self._scratch = cuda.DeviceMemory(self._engine.scratch_bytes)
        self._owned.append(self._scratch)
        # The outputs' sizes are known to a context alone. It is kept: to make one may take seconds.
        largest = max(self._engine.profiles, key=lambda each: each.volume)
        context = self._context(largest, largest.largest)
        for spec in (*self._engine.inputs, *self._engine.outputs):
            size = int(np.prod(_shape(context, spec.name))) * np.dtype(spec.dtype).itemsize
            self._tensors[spec.name] = Tensor(size, self._owned, integrated=integrated)
        self._bind(context)

    def _drain(self) -> None:
        """Wait for what is queued; what it failed with is told by the error under way."""
        with contextlib.suppress(DeviceError):
            self._stream.synchronize()


def _shape(context: Any, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in context.get_tensor_shape(name))
