"""Which versions of which tools made a bundle."""

from __future__ import annotations

import importlib.metadata
import platform

__all__ = ["tool_versions"]

TOOLS = (
    "ran-deploy",
    "torch",
    "onnx",
    "onnxscript",
    "onnx-ir",
    "onnxsim",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "numpy",
)


def tool_versions() -> dict[str, str]:
    """Return the version of Python and of every installed tool that touches a bundle."""
    versions = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
