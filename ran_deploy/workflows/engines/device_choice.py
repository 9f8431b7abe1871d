"""Which GPU, or DLA core of a Jetson, the engines of a bundle are built and run on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ran_deploy.bundle import Bundle
from ran_deploy.errors import ConfigError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends import trt_dla
from ran_deploy.workflows.engines.loading import ALL, AUTO, BUILT_ON_REQUEST, DLA_BACKENDS, runnable_backends

__all__ = ["Device", "device_from_text", "refuse_dla", "using_device"]


@dataclass(frozen=True)
class Device:
    """What `text` names: the GPU of a number, or a DLA core, beside the GPU that is the thread's current one."""

    text: str
    gpu: int | None
    dla_core: int | None

    @property
    def backends(self) -> frozenset[str]:
        """Those whose engines run on it."""
        return BUILT_ON_REQUEST if self.dla_core is None else DLA_BACKENDS

    def require_backend(self, backends: Sequence[str]) -> None:
        """Raises: ConfigError if none of `backends`, among which 'auto' and 'all' may stand, runs on it."""
        if {AUTO, ALL, *self.backends} & set(backends):
            return
        kind, given = ("GPU" if self.dla_core is None else "DLA core"), " and ".join(backends)
        where = "on the CPU" if not BUILT_ON_REQUEST & set(backends) else "on the GPU alone"
        raise ConfigError(
            f"--device {self.text} is a {kind}, and {given} runs {where}. Leave --device out, or choose --backend "
            f"{' or '.join(sorted(self.backends))}."
        )


def device_from_text(text: str) -> Device:
    """Return the GPU of 'cuda:N', the DLA core of 'dla:N'; without a number the first. Raises: ConfigError."""
    match = re.fullmatch(r"(cuda|dla)(?::([0-9]{1,4}))?", text)
    if match is None:
        raise ConfigError(
            f"--device is {text!r}; expected a GPU: cuda, or cuda:N such as cuda:1; or a DLA core: dla:N such as dla:0."
        )
    index = int(match[2] or 0)
    return Device(text, gpu=index, dla_core=None) if match[1] == "cuda" else Device(text, gpu=None, dla_core=index)


def refuse_dla(device: str | None, why: str) -> None:
    """Raise ConfigError for a DLA core where it is of no use; `why` is the sentence that says so."""
    if device is not None and device_from_text(device).dla_core is not None:
        raise ConfigError(f"{why} Leave --device {device} out.")


@contextlib.contextmanager
def using_device(
    text: str | None, bundle: Bundle, backends: Sequence[str], cache_dir: Path | None = None
) -> Iterator[None]:
    """Make the device, as in 'cuda:1' or 'dla:0', that of what this thread builds and opens meanwhile.

    None leaves everything as it is: the GPU, without DLA. An engine opened here stays on that device, whatever thread
    uses it later. `backends` are those asked for; 'auto' and 'all' may stand among them.
    Raises: ConfigError if none of them is of that device, or no such engine; BackendUnavailableError without it.
    """
    if text is None:
        yield
        return
    device = device_from_text(text)
    device.require_backend(backends)
    cuda.require_gpu(device.gpu or 0)
    if device.dla_core is not None:
        trt_dla.require_core(device.dla_core)
    with cuda.on_device(cuda.current_index() if device.gpu is None else device.gpu), trt_dla.on_core(device.dla_core):
        if not BUILT_ON_REQUEST & set(backends):
            _require_engine(device, bundle, cache_dir)
        yield


def _require_engine(device: Device, bundle: Bundle, cache_dir: Path | None) -> None:
    """Raise ConfigError where 'auto' would take another device in spite of --device."""
    reasons = {
        backend: reason
        for backend, reason in runnable_backends(bundle, cache_dir).items()
        if backend in device.backends
    }
    if None not in reasons.values():
        why = " ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
        raise ConfigError(
            f"No engine of {bundle.path} runs on {device.text}. {why or 'It was exported without --backend tensorrt.'}"
        )
