"""Dialects: what each engine family needs the artifact graph rewritten to, one family a file."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ran_deploy.errors import ConfigError
from ran_deploy.precision import Precision

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DIALECTS", "lower"]

DIALECTS = {  # those of our backends, and tensorrt8, which trtexec reads where TensorRT is too old for us
    "tensorrt": "ran_deploy.converters.dialects.tensorrt:tensorrt_graph",
    "tensorrt8": "ran_deploy.converters.dialects.tensorrt8:tensorrt8_graph",
    "openvino": "ran_deploy.converters.dialects.openvino:openvino_graph",
    "onnxruntime": "ran_deploy.converters.dialects.onnxruntime:onnxruntime_graph",
}


def lower(model: ir.Model, dialect: str, precision: Precision) -> ir.Model:
    """Return the graph that engines of `dialect` are built from; `model` never changes.

    `model` is the float32 graph for fp32 and fp16, the s8 graph with its recorded ranges for int8.
    Raises: ConfigError for an unknown dialect; ConversionError if the graph cannot be lowered faithfully.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"Unknown dialect {dialect!r}; choose one of {', '.join(DIALECTS)}.")
    module, name = DIALECTS[dialect].split(":")
    lowered: ir.Model = getattr(importlib.import_module(module), name)(model, precision)
    return lowered
