"""Builders: from a dialect graph to the bytes of an engine, one vendor a file."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Protocol

from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision

__all__ = ["BUILDERS", "BuildOptions", "Builder", "open_builder"]


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a builder may be told. `workspace_bytes` bounds a GPU builder's scratch memory."""

    precision: Precision
    batch: BatchProfile = field(default_factory=BatchProfile)
    workspace_bytes: int = 2**30


class Builder(Protocol):
    """Turns one dialect graph into one engine."""

    def build(self, graph: bytes, options: BuildOptions) -> bytes:
        """Return the engine. Raises: BuildError in one line if the vendor refuses the graph."""
        ...


BUILDERS = {
    "tensorrt": "ran_deploy.converters.builders.trt:TensorRtBuilder",
    "tensorrt-rtx": "ran_deploy.converters.builders.trt:TensorRtRtxBuilder",
    "openvino": "ran_deploy.converters.builders.ov:OpenVinoBuilder",
    "onnxruntime": "ran_deploy.converters.builders.ort:OrtBuilder",
}


def open_builder(backend: str) -> Builder:
    """Return the builder of `backend`. Raises: BackendUnavailableError if its package cannot be imported here."""
    module, name = BUILDERS[backend].split(":")
    builder: Builder = getattr(importlib.import_module(module), name)()
    return builder
