"""Where an engine's time goes, layer by layer, as each vendor's own profiler tells it, one vendor a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ran_deploy.runtime.profiles.layer_time import VendorProfile
from ran_deploy.runtime.profiles.workload import Workload

__all__ = ["PROFILERS", "Workload", "profile_engine"]

PROFILERS = {
    "openvino": "ran_deploy.runtime.profiles.ov:profile",
    "onnxruntime": "ran_deploy.runtime.profiles.ort:profile",
    "tensorrt": "ran_deploy.runtime.profiles.trt:profile_tensorrt",
    "tensorrt-rtx": "ran_deploy.runtime.profiles.trt:profile_tensorrt_rtx",
}


def profile_engine(backend: str, workload: Workload) -> VendorProfile:
    """Load an engine, whose digest the caller has checked, with its vendor's profiler on, and run it.

    `backend` is one of PROFILERS. Raises: BackendUnavailableError if it cannot run here, EngineMismatchError if this is
    no engine of it.
    """
    module, name = PROFILERS[backend].split(":")
    profiler: Callable[[Workload], VendorProfile] = getattr(importlib.import_module(module), name)
    return profiler(workload)
