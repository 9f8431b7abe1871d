"""The recipe that turns a decoded image into what an engine takes, and the one place that executes it.

Mean and standard deviation are part of the recipe but are applied inside the graph: an engine takes uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from ran_deploy.errors import ConfigError

__all__ = ["ChannelOrder", "Interpolation", "Preprocessing", "prepare"]


class Interpolation(str, Enum):
    """How pixels are interpolated on resizing."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class ChannelOrder(str, Enum):
    """The order of the three channels a network was trained with."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, centre crop, channel order; then, in the graph, (x / 255 - mean) / std.

    `resize` is None (keep the size), one number (the shorter side, aspect kept) or (height, width). `crop` is the
    engine's input (height, width): cut from the centre, and padded with zeros where the image is smaller. `mean` and
    `std` are in the network's channel order, for pixels scaled to 0..1. `antialias` is that of torchvision and Pillow.
    """

    crop: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    antialias: bool = True
    channel_order: ChannelOrder = ChannelOrder.RGB
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        sides = [*self.crop, *(self.resize if isinstance(self.resize, tuple) else [self.resize or 1])]
        if min(sides) < 1:
            raise ConfigError(f"Pre-processing sizes must be positive; found resize {self.resize}, crop {self.crop}.")
        if min(self.std) <= 0:
            raise ConfigError(f"Standard deviations must be positive; found {self.std}.")


def prepare(image: np.ndarray, recipe: Preprocessing) -> np.ndarray:
    """Return what the engine takes for one image: uint8 (crop height, crop width, 3) in the recipe's channel order.

    `image` is uint8 RGB (H, W, 3). Raises: ShapeError for anything else.
    """
    raise NotImplementedError
