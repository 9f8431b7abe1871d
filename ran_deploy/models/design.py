"""The numbers that define one Residual Attention Network; plain data, no PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ran_deploy.errors import ConfigError


class Stem(str, Enum):
    """How an image enters the network."""

    CONV7_POOL3 = "7x7 stride 2, max pool 3x3 stride 2"
    CONV5_POOL2 = "5x5 stride 1, max pool 2x2 stride 2"
    CONV5_STRIDE2 = "5x5 stride 2"
    CONV3 = "3x3 stride 1"


class Pooling(str, Enum):
    """How the 3x3 stride 2 max pools of stem and masks treat the border."""

    CEIL = "no padding, size rounded up"
    PADDED = "padding 1, size rounded down"


class MaskJoin(str, Enum):
    """What a mask adds to an upsampled tensor besides the skip unit's output."""

    SKIP = "nothing"
    DENSE = "the encoder tensor; before the head the trunk"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry unit (which changes width and stride), then attention modules, then plain units."""

    width: int
    stride: int
    modules: int
    mask_depth: int = 0  # max pools in each module's mask
    closing_units: int = 0


@dataclass(frozen=True, kw_only=True)
class Design:
    """A whole network. p, t and r are the paper's: units before and after, in the trunk, between pools of the mask.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.1 (p, t, r) and table 2.
    """

    stem: Stem
    stem_width: int
    stages: tuple[Stage, ...]
    pooling: Pooling = Pooling.CEIL
    join: MaskJoin = MaskJoin.SKIP
    p: int = 1
    t: int = 2
    r: int = 1

    @property
    def trunk_depth(self) -> int:
        """Weighted layers on the trunk path: three convolutions a unit, the stem and the classifier."""
        units = sum(1 + stage.modules * (2 * self.p + self.t) + stage.closing_units for stage in self.stages)
        return 3 * units + 2

    def check_input_size(self, height: int, width: int) -> None:
        """Raise ConfigError when a side vanishes in a pool: PyTorch raises there, ONNX Runtime 1.32 dies."""
        for side in (height, width):
            if not self._fits(side):
                smallest = next(n for n in range(side + 1, 4096) if self._fits(n))
                raise ConfigError(
                    f"Input size {height}x{width} is too small: a max pool of this network would see nothing. "
                    f"The smallest side it takes is {smallest}."
                )

    def _fits(self, side: int) -> bool:
        pool = POOLED_SIDE[self.pooling]
        side = STEM_SIDE[self.stem](side, pool)
        for stage in self.stages:
            side = _strided(side, stage.stride)
            level = side
            for _ in range(stage.mask_depth if stage.modules else 0):
                if level < 1 or (self.pooling is Pooling.CEIL and level < 2):
                    return False
                level = pool(level)
        return side >= 1


def _strided(side: int, stride: int) -> int:
    return -(-side // stride)


POOLED_SIDE: dict[Pooling, Callable[[int], int]] = {
    Pooling.CEIL: lambda n: -(-(n - 3) // 2) + 1,
    Pooling.PADDED: lambda n: (n - 1) // 2 + 1,
}
STEM_SIDE: dict[Stem, Callable[[int, Callable[[int], int]], int]] = {
    Stem.CONV7_POOL3: lambda n, pool: pool(_strided(n, 2)),
    Stem.CONV5_POOL2: lambda n, pool: n // 2,
    Stem.CONV5_STRIDE2: lambda n, pool: _strided(n, 2),
    Stem.CONV3: lambda n, pool: n,
}
