"""What an engine gives for a batch, where more than the logits is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Outputs"]


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """`logits` float32 (N, output size), and by name of its module each soft mask, float32 (N, height, width)."""

    logits: np.ndarray
    attention: Mapping[str, np.ndarray]
