"""The numeric formats a bundle can be exported in."""

from __future__ import annotations

from enum import Enum

__all__ = ["Precision"]


class Precision(str, Enum):
    """What the artifact graph computes in; written into the graph, never into builder flags."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
