"""Which GPUs there are, and which one the calling thread uses."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.runtime.cuda.binding import Device, binding

__all__ = ["current_device", "current_index", "on_device", "require_gpu", "used_bytes"]


def require_gpu(index: int = 0) -> None:
    """Raises: BackendUnavailableError if the binding, the driver or the GPU of that number is missing."""
    try:
        count = binding().device_count()
    except DeviceError as exc:
        raise BackendUnavailableError(
            f"No NVIDIA GPU can be used here: {exc} If there is one, install or update its driver; nvidia-smi shows "
            "both."
        ) from exc
    if count == 0:
        raise BackendUnavailableError(
            "No NVIDIA GPU can be used here: the driver lists none. If nvidia-smi does, unset CUDA_VISIBLE_DEVICES."
        )
    if index >= count:
        listed = ", ".join(f"cuda:{i} ({binding().device(i).name})" for i in range(count))
        raise BackendUnavailableError(f"There is no GPU cuda:{index}; this machine has {listed}.")


def on_device(index: int) -> AbstractContextManager[None]:
    """Make a GPU the calling thread's current one within a with statement. Raises: DeviceError.

    CUDA and TensorRT do everything on the current device, and each thread has its own: 0 unless it chose another.
    """
    return binding().current(index)


def current_index() -> int:
    """Return the number of the device that this thread uses. Raises: DeviceError, BackendUnavailableError."""
    return binding().current_index()


def current_device() -> Device:
    """Return the device that this thread uses. Raises: DeviceError, BackendUnavailableError."""
    return binding().device(current_index())


def used_bytes() -> int:
    """Return the memory in use on this thread's device, by all processes. Raises: DeviceError."""
    with on_device(current_index()):
        free, total = binding().free_and_total_bytes()
    return total - free
