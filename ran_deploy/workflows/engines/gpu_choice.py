"""Which GPU the engines of a bundle are built and run on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ran_deploy.bundle import Bundle
from ran_deploy.errors import ConfigError
from ran_deploy.runtime import cuda
from ran_deploy.workflows.engines.loading import ALL, AUTO, BUILT_ON_REQUEST, runnable_backends

__all__ = ["gpu_index", "on_gpu"]


def gpu_index(device: str) -> int:
    """Return N of 'cuda:N', 0 for 'cuda'. Raises: ConfigError."""
    match = re.fullmatch(r"cuda(?::([0-9]{1,4}))?", device)
    if match is None:
        raise ConfigError(f"--device is {device!r}; expected a GPU: cuda, or cuda:N such as cuda:1.")
    return int(match[1] or 0)


@contextlib.contextmanager
def on_gpu(
    device: str | None, bundle: Bundle, backends: Sequence[str], cache_dir: Path | None = None
) -> Iterator[None]:
    """Make `device`, as in 'cuda:1', the GPU of what this thread builds and opens meanwhile; None leaves it as it is.

    An engine opened here stays on that GPU, whatever thread uses it later. `backends` are those asked for; 'auto' and
    'all' may stand among them.
    Raises: ConfigError if none of them is of GPUs, or no such engine; BackendUnavailableError without that GPU.
    """
    if device is None:
        yield
        return
    index = gpu_index(device)
    if not {AUTO, ALL, *BUILT_ON_REQUEST} & set(backends):
        raise ConfigError(
            f"--device {device} is a GPU, and {' and '.join(backends)} runs on the CPU. Leave --device out, or choose "
            "--backend tensorrt or tensorrt-rtx."
        )
    cuda.require_gpu(index)
    with cuda.on_device(index):
        if not BUILT_ON_REQUEST & set(backends):
            _require_gpu_engine(device, bundle, cache_dir)
        yield


def _require_gpu_engine(device: str, bundle: Bundle, cache_dir: Path | None) -> None:
    """Raise ConfigError where 'auto' would take the CPU in spite of --device."""
    reasons = {
        backend: reason
        for backend, reason in runnable_backends(bundle, cache_dir).items()
        if backend in BUILT_ON_REQUEST
    }
    if None not in reasons.values():
        why = " ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
        raise ConfigError(
            f"No engine of {bundle.path} runs on {device}. {why or 'It was exported without --backend tensorrt.'}"
        )
