"""Runners: a loaded engine of each vendor, one vendor a file."""

from __future__ import annotations

import importlib
from typing import Protocol

from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.runtime.runner import Runner

__all__ = ["RUNNERS", "fingerprint", "open_runner", "unavailable_reason"]

RUNNERS = {
    "openvino": "ran_deploy.runtime.backends.ov:OpenVinoRunner",
    "onnxruntime": "ran_deploy.runtime.backends.ort:OrtRunner",
    "tensorrt": "ran_deploy.runtime.backends.trt:TensorRtRunner",
    "tensorrt-rtx": "ran_deploy.runtime.backends.trt:TensorRtRtxRunner",
}


class RunnerClass(Protocol):
    """What an entry of RUNNERS names."""

    def __call__(
        self,
        engine: bytes,
        *,
        threads: int = 0,
        traits: EngineTraits = NO_TRAITS,
        kernels: KeptFile | None = None,
    ) -> Runner: ...

    def require(self) -> None:
        """Raises: BackendUnavailableError, in one line, if engines of this backend cannot run here."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what must agree between the machine that built an engine and the one that loads it."""
        ...


def open_runner(
    backend: str,
    engine: bytes,
    *,
    threads: int = 0,
    traits: EngineTraits = NO_TRAITS,
    kernels: KeptFile | None = None,
) -> Runner:
    """Load `engine`, whose digest the caller has checked: an engine is executable code. `threads` 0: all the CPU has.

    `kernels`: where a backend that compiles when it loads, TensorRT-RTX alone, finds and keeps what it compiled.
    Raises: BackendUnavailableError if `backend` cannot run here, EngineMismatchError if this is no engine of it.
    """
    return _runner_class(backend)(engine, threads=threads, traits=traits, kernels=kernels)


def fingerprint(backend: str) -> dict[str, str]:
    """Return what must agree between builder and loader, by readable name. Raises: BackendUnavailableError."""
    return _runner_class(backend).fingerprint()


def unavailable_reason(backend: str) -> str | None:
    """Return None if `backend` can run here, else why not, in one line. It imports the vendor's package."""
    try:
        _runner_class(backend).require()
    except BackendUnavailableError as exc:
        return str(exc)
    return None


def _runner_class(backend: str) -> RunnerClass:
    if backend not in RUNNERS:
        raise ConfigError(f"Unknown backend {backend!r}; choose one of {', '.join(RUNNERS)}.")
    module, name = RUNNERS[backend].split(":")
    runner_class: RunnerClass = getattr(importlib.import_module(module), name)
    return runner_class
