"""What one batch needs on its way through a GPU, so that several are under way at once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends.trt_call import Call, Tensor, shape_of
from ran_deploy.runtime.backends.trt_engine import TensorRtEngine
from ran_deploy.runtime.backends.trt_profiles import Profile, Shapes

__all__ = ["GRAPH_CALLS", "Slot"]

logger = logging.getLogger(__name__)

REPEATED = 4  # batch sizes that get a context, and a graph, of their own; a stream of images has one and a remainder
GRAPH_CALLS = 3  # of one size until a graph is launched: queued, queued in a context of its own, captured
Key = tuple[tuple[str, tuple[int, ...]], ...]


class Slot:
    """A stream, memory for the engine's largest batch, and execution contexts.

    Each profile in use has a context whose shapes change with the batch; so has each of the first `repeated` sizes that
    come again, and of `padded_sizes`, as a context whose graph was captured may not change. All share the memory for
    the engine's layers: they run one after the other. One call at a time, on the calling thread's device, which has to
    be the engine's.
    """

    def __init__(
        self, engine: TensorRtEngine, *, mapped: bool, repeated: int = REPEATED, padded_sizes: Set[int] = frozenset()
    ) -> None:
        self._engine = engine
        self._owned: list[Any] = []
        self._tensors: dict[str, Tensor] = {}
        self._contexts: dict[int, Any] = {}
        self._seen: set[Key] = set()
        self._repeated: dict[Key, Call] = {}
        self._most_repeated = repeated
        self._padded_sizes = padded_sizes
        self._memory_is_short = False
        try:
            self._allocate(mapped)
        except BaseException:
            self.close()
            raise

    def infer(self, arrays: Mapping[str, np.ndarray], shapes: Shapes, profile: Profile) -> dict[str, np.ndarray]:
        """Run one batch with `shapes`, which `profile` takes: those of the arrays, or of a larger batch.

        It is padded by what an earlier batch left in memory. Raises: DeviceError; nothing is in flight after it.
        """
        batch = min(len(array) for array in arrays.values())
        for spec in self._engine.inputs:
            array = arrays[spec.name]
            np.copyto(self._tensors[spec.name].host.view(array.shape, spec.dtype), array)
        try:
            call = self._call(profile, shapes)
            call.queue()
            self._stream.synchronize()
        except BaseException:
            self._drain()
            raise
        return {name: array[:batch].copy() for name, array in call.outputs.items()}

    def close(self) -> None:
        """Release everything, whatever is in flight; a second call does nothing."""
        if self._owned:
            self._drain()
        self._owned += self._repeated.values()
        self._repeated.clear()
        self._contexts.clear()
        self._tensors.clear()
        cuda.release(self._owned)

    def _call(self, profile: Profile, shapes: Shapes) -> Call:
        """Return the call for `shapes`, a kept one where they come again."""
        key = tuple(shapes.items())
        if key in self._repeated:
            return self._repeated[key]
        if key in self._seen and self._has_room_for(key):
            try:
                context = self._new_context(profile, shapes, repeated=True)
            except DeviceError as exc:
                self._memory_is_short = True
                logger.warning("no further batch size gets a context of its own, which may cost speed: %s", exc)
            else:
                self._repeated[key] = Call(self._engine, context, self._stream, self._tensors)
                return self._repeated[key]
        self._seen.add(key)
        return Call(self._engine, self._context(profile, shapes), self._stream, self._tensors)

    def _has_room_for(self, key: Key) -> bool:
        """Return whether a size that comes again gets a context of its own."""
        others = sum(not self._has_padded_size(each) for each in self._repeated)
        return not self._memory_is_short and (self._has_padded_size(key) or others < self._most_repeated)

    def _has_padded_size(self, key: Key) -> bool:
        return key[0][1][0] in self._padded_sizes

    def _context(self, profile: Profile, shapes: Shapes) -> Any:
        """Return the profile's own context with `shapes` set."""
        if profile.index not in self._contexts:
            self._contexts[profile.index] = self._new_context(profile, shapes)
        context = self._contexts[profile.index]
        self._set_shapes(context, shapes)
        return context

    def _new_context(self, profile: Profile, shapes: Shapes, *, repeated: bool = False) -> Any:
        context = self._engine.new_context(repeated=repeated)
        context.set_device_memory(self._scratch.address, self._engine.scratch_bytes)
        if not context.set_optimization_profile_async(profile.index, self._stream.handle):
            raise DeviceError(f"{self._engine.package} refuses profile {profile.index}: {self._engine.reason()}.")
        self._set_shapes(context, shapes)
        self._bind(context)
        return context

    def _set_shapes(self, context: Any, shapes: Shapes) -> None:
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise DeviceError(f"{self._engine.package} refuses {name!r} of {shape}: {self._engine.reason()}.")

    def _bind(self, context: Any) -> None:
        for name, tensor in self._tensors.items():
            if not context.set_tensor_address(name, tensor.address):
                raise DeviceError(f"{self._engine.package} refuses the memory of {name!r}: {self._engine.reason()}.")

    def _allocate(self, mapped: bool) -> None:
        self._stream = cuda.Stream()
        self._owned.append(self._stream)
        self._scratch = cuda.DeviceMemory(self._engine.scratch_bytes)
        self._owned.append(self._scratch)
        # The outputs' sizes are known to a context alone. It is kept: to make one may take seconds.
        largest = max(self._engine.profiles, key=lambda each: each.volume)
        context = self._context(largest, largest.largest)
        for spec in (*self._engine.inputs, *self._engine.outputs):
            size = int(np.prod(shape_of(context, spec.name))) * np.dtype(spec.dtype).itemsize
            self._tensors[spec.name] = Tensor(size, self._owned, mapped=mapped)
        self._bind(context)

    def _drain(self) -> None:
        """Wait for what is queued; what it failed with is told by the error under way."""
        with contextlib.suppress(DeviceError):
            self._stream.synchronize()
