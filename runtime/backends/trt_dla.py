"""Which core of NVIDIA's deep learning accelerator, DLA, TensorRT's engines are loaded on.

The core is chosen by the runtime that loads an engine, not by the build, so one engine serves every core of a device:
https://github.com/NVIDIA-AI-IOT/cuDLA-samples/issues/35 says so for NVIDIA, and in
https://github.com/microsoft/onnxruntime/pull/28364 an engine was seen on the core that its runtime had been told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from ran_deploy.vendors import import_tensorrt, require_dla_core, tensorrt_log

__all__ = ["core_count", "current_core", "on_core", "require_core"]

_core: ContextVar[int | None] = ContextVar("_core", default=None)


def current_core() -> int | None:
    """Return the core that engines are loaded on by this thread; None, as at first, for the GPU alone."""
    return _core.get()


@contextlib.contextmanager
def on_core(index: int | None) -> Iterator[None]:
    """Make a DLA core the calling thread's current one within a with statement; None is the GPU alone."""
    before = _core.set(index)
    try:
        yield
    finally:
        _core.reset(before)


def core_count() -> int:
    """Return how many DLA cores TensorRT finds. Raises: BackendUnavailableError without TensorRT."""
    trt = import_tensorrt("tensorrt")
    runtime = trt.Runtime(tensorrt_log("tensorrt").trt_logger)
    return int(runtime.num_DLA_cores)


def require_core(index: int) -> None:
    """Raises: BackendUnavailableError, saying how many there are, if there is no core of that number."""
    require_dla_core(import_tensorrt("tensorrt"), core_count(), index)
