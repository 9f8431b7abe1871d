"""Where an engine's time goes, layer by layer, as each vendor's own profiler tells it, one vendor a file."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.runtime.profiles.layer_time import EngineProfile

__all__ = ["PROFILERS", "profile_engine"]

PROFILERS = {
    "openvino": "ran_deploy.runtime.profiles.ov:profile",
    "onnxruntime": "ran_deploy.runtime.profiles.ort:profile",
    "tensorrt": "ran_deploy.runtime.profiles.trt:profile_tensorrt",
    "tensorrt-rtx": "ran_deploy.runtime.profiles.trt:profile_tensorrt_rtx",
}


class Profiler(Protocol):
    """What an entry of PROFILERS names."""

    def __call__(
        self,
        engine: bytes,
        feeds: Mapping[str, np.ndarray],
        *,
        runs: int,
        warm_up: int,
        threads: int = 0,
        traits: EngineTraits = NO_TRAITS,
    ) -> EngineProfile: ...


def profile_engine(
    backend: str,
    engine: bytes,
    feeds: Mapping[str, np.ndarray],
    *,
    runs: int,
    warm_up: int,
    threads: int = 0,
    traits: EngineTraits = NO_TRAITS,
) -> EngineProfile:
    """Load `engine`, whose digest the caller has checked, once more with its vendor's profiler on, and run it.

    `backend` is one of PROFILERS. `feeds` is a batch that the engine takes; `runs` of it count, after `warm_up` more.
    Raises: BackendUnavailableError if `backend` cannot run here, EngineMismatchError if this is no engine of it.
    """
    module, name = PROFILERS[backend].split(":")
    profiler: Profiler = getattr(importlib.import_module(module), name)
    return profiler(engine, feeds, runs=runs, warm_up=warm_up, threads=threads, traits=traits)
