"""ran-deploy: Residual Attention Networks from a PyTorch checkpoint to proven engines.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ran_deploy.converters.builders import GpuOptions
    from ran_deploy.manifest import BatchProfile
    from ran_deploy.workflows.bench import BenchConfig
    from ran_deploy.workflows.bench import bench_bundle as bench
    from ran_deploy.workflows.build import BuildConfig
    from ran_deploy.workflows.build import build_for_device as build
    from ran_deploy.workflows.export import ExportConfig
    from ran_deploy.workflows.export import export_bundle as export
    from ran_deploy.workflows.exporting.recipe import RecipeOptions
    from ran_deploy.workflows.load import load
    from ran_deploy.workflows.profile import profile_bundle as profile
    from ran_deploy.workflows.validate import ValidateConfig
    from ran_deploy.workflows.validate import validate_bundle as validate

__all__ = [
    "BatchProfile",
    "BenchConfig",
    "BuildConfig",
    "ExportConfig",
    "GpuOptions",
    "RecipeOptions",
    "ValidateConfig",
    "bench",
    "build",
    "export",
    "load",
    "profile",
    "validate",
]

_HOME = {
    "BatchProfile": "ran_deploy.manifest:BatchProfile",
    "GpuOptions": "ran_deploy.converters.builders:GpuOptions",
    "RecipeOptions": "ran_deploy.workflows.exporting.recipe:RecipeOptions",
    "BenchConfig": "ran_deploy.workflows.bench:BenchConfig",
    "bench": "ran_deploy.workflows.bench:bench_bundle",
    "BuildConfig": "ran_deploy.workflows.build:BuildConfig",
    "build": "ran_deploy.workflows.build:build_for_device",
    "ExportConfig": "ran_deploy.workflows.export:ExportConfig",
    "export": "ran_deploy.workflows.export:export_bundle",
    "load": "ran_deploy.workflows.load:load",
    "profile": "ran_deploy.workflows.profile:profile_bundle",
    "ValidateConfig": "ran_deploy.workflows.validate:ValidateConfig",
    "validate": "ran_deploy.workflows.validate:validate_bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ran_deploy' has no attribute {name!r}")
    module, attribute = _HOME[name].split(":")
    return getattr(importlib.import_module(module), attribute)
