"""The numbers that define one Residual Attention Network; plain data, no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import msgspec

from ran_deploy.errors import CheckpointError, ConfigError

DEEPEST_MASK = 12  # halves 4096 pixels to one
DEEPEST_TRUNK = 10_000  # layers: a checkpoint must not ask for more memory than there is


class Stem(str, Enum):
    """How an image enters the network."""

    CONV7_POOL3 = "conv7-pool3"  # 7x7 stride 2, max pool 3x3 stride 2
    CONV7 = "conv7"  # 7x7 stride 2
    CONV5_POOL2 = "conv5-pool2"  # 5x5 stride 1, max pool 2x2 stride 2
    CONV5_STRIDE2 = "conv5-stride2"  # 5x5 stride 2
    CONV3 = "conv3"  # 3x3 stride 1


class Pooling(str, Enum):
    """How the 3x3 stride 2 max pools of stem and masks treat the border."""

    CEIL = "ceil"  # no padding, size rounded up
    PADDED = "padded"  # padding 1, size rounded down


class MaskJoin(str, Enum):
    """What a mask adds to an upsampled tensor besides the skip unit's output."""

    SKIP = "skip"  # nothing
    DENSE = "dense"  # the encoder tensor; before the head the trunk


class Unit(str, Enum):
    """What trunks and masks are made of."""

    PRE_ACTIVATION = "pre-activation"
    RESNEXT = "resnext"
    INCEPTION = "inception"


class Attention(str, Enum):
    """What turns a mask's features into weights: the paper, section 3.2."""

    MIXED = "mixed"  # f1: sigmoid
    CHANNEL = "channel"  # f2: each position's vector over its L2 norm
    SPATIAL = "spatial"  # f3: each channel's map standardised, then sigmoid


class Learning(str, Enum):
    """How the mask M weights the trunk T: equations 3 and 1 of the paper."""

    RESIDUAL = "residual"  # (1 + M) T
    NAIVE = "naive"  # M T


class Tail(str, Enum):
    """What stands between the last unit and the linear layer."""

    NORM_POOL = "norm-pool"  # BatchNorm, ReLU, global average
    POOL = "pool"  # global average
    FLATTEN = "flatten"  # nothing: every value of the map is a feature; BatchNorm follows


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry unit (which changes width and stride), then attention modules, then plain units."""

    width: int
    stride: int
    modules: int
    mask_depth: int = 0  # max pools in each module's mask
    closing_units: int = 0

    def __post_init__(self) -> None:
        if min(self.width, self.stride) < 1 or min(self.modules, self.mask_depth, self.closing_units) < 0:
            raise ConfigError(f"{self}: width and stride must be at least 1, the others at least 0.")
        if self.mask_depth > DEEPEST_MASK:
            raise ConfigError(f"A mask with {self.mask_depth} max pools; at most {DEEPEST_MASK} make sense.")


@dataclass(frozen=True, kw_only=True)
class Design:
    """A whole network. p, t and r are the paper's: units before and after, in the trunk, between pools of the mask.

    `after` replaces p behind the module where an implementation keeps it at one, `unpooled_units` the 2 r units of a
    mask of depth 0. `last_map` is the (height, width) of the last feature map where Tail.FLATTEN fixes it, else None.

    Source: Wang et al. 2017, arXiv:1704.06904, section 3.1 (p, t, r) and table 2.
    """

    stem: Stem
    stem_width: int
    stages: tuple[Stage, ...]
    pooling: Pooling = Pooling.CEIL
    join: MaskJoin = MaskJoin.SKIP
    unit: Unit = Unit.PRE_ACTIVATION
    attention: Attention = Attention.MIXED
    learning: Learning = Learning.RESIDUAL
    tail: Tail = Tail.NORM_POOL
    last_map: tuple[int, int] | None = None
    p: int = 1
    t: int = 2
    r: int = 1
    after: int | None = None
    unpooled_units: int | None = None

    def __post_init__(self) -> None:
        if not self.stages or self.stem_width < 1:
            raise ConfigError(
                f"{len(self.stages)} stages behind a stem of width {self.stem_width}; both must be there."
            )
        multiple = WIDTH_MULTIPLE[self.unit]
        odd = [stage.width for stage in self.stages if stage.width % multiple]
        if odd:
            raise ConfigError(f"Stage width {odd[0]}: {self.unit.value} units need a multiple of {multiple}.")
        if min(self.p, self.t, self.r, self.units_after) < 1:
            raise ConfigError(f"p = {self.p}, t = {self.t}, r = {self.r}: each must be at least 1.")
        if max(self.trunk_depth, self.r) > DEEPEST_TRUNK:
            raise ConfigError(
                f"A trunk of {self.trunk_depth} layers, r = {self.r}: no network is deeper than {DEEPEST_TRUNK}."
            )
        if self.unpooled_units is not None and self.unpooled_units < 1:
            raise ConfigError(f"A mask of {self.unpooled_units} units; it needs at least 1.")
        if (self.last_map is None) == (self.tail is Tail.FLATTEN):
            raise ConfigError("The size of the last map is for nets that flatten it, and they need it.")

    @property
    def units_after(self) -> int:
        """Units between an attention module's product and the next module."""
        return self.p if self.after is None else self.after

    def bottom_units(self, stage: Stage) -> int:
        """Units at the lowest resolution of a mask in `stage`."""
        return 2 * self.r if stage.mask_depth or self.unpooled_units is None else self.unpooled_units

    @property
    def trunk_depth(self) -> int:
        """Weighted layers on the trunk path: three convolutions a unit, the stem and the classifier."""
        module = self.p + self.t + self.units_after
        units = sum(1 + stage.modules * module + stage.closing_units for stage in self.stages)
        return 3 * units + 2

    @property
    def reduction(self) -> int:
        """How many pixels of the image make one position of the last map, along a side."""
        return STEM_REDUCTION[self.stem] * math.prod(stage.stride for stage in self.stages)

    @property
    def smallest_side(self) -> int:
        """The smallest height and width at which every pool sees something."""
        return next(side for side in range(1, 4096) if self._last_side(side))

    def check_input_size(self, height: int, width: int) -> None:
        """Raise ConfigError for a size the network cannot take.

        Where a side vanishes in a pool PyTorch raises and ONNX Runtime 1.32 dies; a flattened map has one size only.
        """
        for side in (height, width):
            if self._last_side(side) is None:
                raise ConfigError(
                    f"Input size {height}x{width} is too small: a max pool of this network would see nothing. "
                    f"The smallest side it takes is {self.smallest_side}."
                )
        found = (self._last_side(height), self._last_side(width))
        if self.last_map is not None and found != self.last_map:
            raise ConfigError(
                f"Input size {height}x{width} gives a last map of {found[0]}x{found[1]}; this network flattens it and "
                f"takes {self.last_map[0]}x{self.last_map[1]} alone. Leave --input-size out."
            )

    def _last_side(self, side: int) -> int | None:
        """Return a side of the last map, None if a pool on the way would see nothing."""
        side = STEM_SIDE[self.stem](side, POOLED_SIDE[self.pooling])
        for stage in self.stages:
            side = strided_side(side, stage.stride)
            if stage.modules and mask_sides(self.pooling, side, stage.mask_depth) is None:
                return None
        return side if side >= 1 else None


def design_to_json(design: Design) -> bytes:
    """Return the design as a checkpoint stores it."""
    return msgspec.json.encode(design)


def design_from_json(data: bytes) -> Design:
    """Return the design a checkpoint stores. Raises: CheckpointError."""
    try:
        return msgspec.json.decode(data, type=Design)
    except (msgspec.DecodeError, ConfigError) as exc:
        raise CheckpointError(f"The network design stored in the checkpoint cannot be read ({exc}).") from exc


def strided_side(side: int, stride: int) -> int:
    """Return a side after a convolution of that stride whose padding keeps the size at stride 1."""
    return -(-side // stride)


def mask_sides(pooling: Pooling, side: int, depth: int) -> list[int] | None:
    """Return a side at each level of a mask, None if one of its pools would see nothing."""
    sides = [side]
    for _ in range(depth):
        if sides[-1] < 1 or (pooling is Pooling.CEIL and sides[-1] < 2):
            return None
        sides.append(POOLED_SIDE[pooling](sides[-1]))
    return sides


POOLED_SIDE: dict[Pooling, Callable[[int], int]] = {
    Pooling.CEIL: lambda n: -(-(n - 3) // 2) + 1,
    Pooling.PADDED: lambda n: (n - 1) // 2 + 1,
}
STEM_SIDE: dict[Stem, Callable[[int, Callable[[int], int]], int]] = {
    Stem.CONV7_POOL3: lambda n, pool: pool(strided_side(n, 2)),
    Stem.CONV7: lambda n, pool: strided_side(n, 2),
    Stem.CONV5_POOL2: lambda n, pool: n // 2,
    Stem.CONV5_STRIDE2: lambda n, pool: strided_side(n, 2),
    Stem.CONV3: lambda n, pool: n,
}
STEM_CONVS = {  # kernel, stride
    Stem.CONV7_POOL3: (7, 2),
    Stem.CONV7: (7, 2),
    Stem.CONV5_POOL2: (5, 1),
    Stem.CONV5_STRIDE2: (5, 2),
    Stem.CONV3: (3, 1),
}
STEM_REDUCTION = {Stem.CONV7_POOL3: 4, Stem.CONV7: 2, Stem.CONV5_POOL2: 2, Stem.CONV5_STRIDE2: 2, Stem.CONV3: 1}
# A bottleneck's middle is a quarter of the width; ResNeXt's is half of it in 32 groups; Inception splits it in fours.
WIDTH_MULTIPLE = {Unit.PRE_ACTIVATION: 4, Unit.RESNEXT: 64, Unit.INCEPTION: 16}
