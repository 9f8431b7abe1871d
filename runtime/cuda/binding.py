"""What the device layer needs of a CUDA binding, and which of the installed ones it takes."""

from __future__ import annotations

import functools
import importlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.vendors import one_line

__all__ = ["Binding", "Device", "binding"]

# Package -> ours, the first that can be imported. Both may be there; cuda-python is NVIDIA's own and releases Python's
# lock in every call, pycuda is what some boards have.
BINDINGS = {
    "cuda.bindings": "ran_deploy.runtime.cuda.cuda_python:CudaPython",
    "pycuda": "ran_deploy.runtime.cuda.pycuda_driver:PyCuda",
}


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU. `driver` is the highest CUDA version its driver supports, as in 13.0.

    An `integrated` one shares the processor's memory, as on a Jetson: what is page-locked there needs no copy.
    """

    name: str
    compute_capability: str
    memory_bytes: int
    driver: str
    integrated: bool


class Binding(Protocol):
    """A CUDA binding, every call checked: they raise DeviceError.

    Streams, memory and graphs are the binding's own objects: what one method returns, the others take. All of it
    belongs to the device that is current when it is made, and is used while that device is current.
    """

    def device_count(self) -> int: ...

    def device(self, index: int) -> Device: ...

    def current_index(self) -> int:
        """Return the calling thread's current device."""
        ...

    def current(self, index: int) -> AbstractContextManager[None]:
        """Make a device the calling thread's current one, and afterwards the one that was."""
        ...

    def free_and_total_bytes(self) -> tuple[int, int]: ...

    def create_stream(self) -> Any: ...

    def stream_handle(self, stream: Any) -> int:
        """Return the cudaStream_t, which is a CUstream, as a number."""
        ...

    def synchronize(self, stream: Any) -> None: ...

    def destroy_stream(self, stream: Any) -> None: ...

    def allocate(self, size: int) -> Any:
        """Return device memory; int() of it is its address."""
        ...

    def free(self, memory: Any) -> None: ...

    def allocate_host(self, size: int) -> tuple[np.ndarray, int, Any]:
        """Return page-locked memory: as uint8 (size,), its address for the device, and what `free_host` takes."""
        ...

    def free_host(self, memory: Any) -> None: ...

    def copy_to_device(self, target: int, source: np.ndarray, stream: Any) -> None:
        """Queue a copy of a page-locked array."""
        ...

    def copy_to_host(self, target: np.ndarray, source: int, stream: Any) -> None: ...

    def begin_capture(self, stream: Any) -> None: ...

    def end_capture(self, stream: Any) -> Any:
        """Return what was captured, ready to `launch`; in every case the stream no longer captures."""
        ...

    def launch(self, graph: Any, stream: Any) -> None: ...

    def destroy_graph(self, graph: Any) -> None: ...


@functools.cache
def binding() -> Binding:
    """Return the binding of this process. Raises: BackendUnavailableError saying why none can be imported."""
    reasons = []
    for package, place in BINDINGS.items():
        module, name = place.split(":")
        try:
            found: Binding = getattr(importlib.import_module(module), name)()
        except (ImportError, OSError, RuntimeError) as exc:  # the last two: shared libraries that do not load
            reasons.append(f"{package} ({one_line(exc)})")
        else:
            return found
    raise BackendUnavailableError(
        f"Cannot import {' or '.join(reasons)}. It needs an NVIDIA driver and pip install 'ran-deploy[tensorrt]' or "
        "another cuda-python of that driver's CUDA version."
    )
