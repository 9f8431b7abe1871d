"""The parts of a Residual Attention Network, and what else an engine's time may go to."""

from __future__ import annotations

from enum import Enum

__all__ = ["Part"]


class Part(str, Enum):
    """Where a layer belongs. The last three are no part of the network.

    `UNITS` are those outside trunk and mask. `SEVERAL`: parts that one layer does together, where no convolution
    says which it is counted for. `UNKNOWN`: what an engine does beside the graph it was built from.
    """

    PROLOGUE = "normalisation"
    STEM = "stem"
    UNITS = "units"
    TRUNK = "trunk"
    MASK = "soft mask"
    GATE = "gate"
    CLASSIFIER = "classifier"
    ATTENTION = "attention outputs"
    CONVERSIONS = "conversions"
    SEVERAL = "several parts"
    UNKNOWN = "not in the graph"
