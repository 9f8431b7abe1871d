"""Parameters and multiply-adds of a design by arithmetic alone: no PyTorch, no network built.

Source: the shapes in network.py, units.py and attention.py, which the tests hold this against.
"""

from __future__ import annotations

from dataclasses import dataclass

from ran_deploy.models.design import (
    POOLED_SIDE,
    STEM_CONVS,
    STEM_SIDE,
    Design,
    Stage,
    Tail,
    Unit,
    mask_sides,
    strided_side,
)

__all__ = ["Cost", "cost_of"]

Size = tuple[int, int]  # height, width
RESNEXT_GROUPS = 32


@dataclass(frozen=True)
class Cost:
    """What layers hold and compute: learnable values, BatchNorm statistics, multiply-adds of one image.

    Multiply-adds are those of convolutions and linear layers, as papers count them ("FLOPs").
    """

    parameters: int = 0
    statistics: int = 0
    multiply_adds: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.statistics + other.statistics,
            self.multiply_adds + other.multiply_adds,
        )

    def __mul__(self, times: int) -> Cost:
        return Cost(self.parameters * times, self.statistics * times, self.multiply_adds * times)


def cost_of(design: Design, outputs: int, input_size: Size) -> Cost:
    """Return the cost of the network of `design`. Raises: ConfigError for a size it cannot take."""
    design.check_input_size(*input_size)
    kernel, stride = STEM_CONVS[design.stem]
    cost = _conv(3, design.stem_width, kernel, _strided(input_size, stride)) + _norm(design.stem_width)
    height, width = (STEM_SIDE[design.stem](side, POOLED_SIDE[design.pooling]) for side in input_size)
    size, channels = (height, width), design.stem_width
    for stage in design.stages:
        cost += _unit(design.unit, channels, stage.width, stage.stride, size)
        size, channels = _strided(size, stage.stride), stage.width
        plain = _unit(design.unit, channels, channels, 1, size)
        cost += _module(design, stage, size) * stage.modules + plain * stage.closing_units
    return cost + _tail(design, channels, outputs)


def _module(design: Design, stage: Stage, size: Size) -> Cost:
    trunk = _unit(design.unit, stage.width, stage.width, 1, size) * (design.p + design.t + design.units_after)
    return trunk + _mask(design, stage, size)


def _mask(design: Design, stage: Stage, size: Size) -> Cost:
    heights, widths = (mask_sides(design.pooling, side, stage.mask_depth) for side in size)
    assert heights is not None  # sizes were checked
    assert widths is not None
    levels = [_unit(design.unit, stage.width, stage.width, 1, level) for level in zip(heights, widths, strict=True)]
    cost = levels[-1] * design.bottom_units(stage) + _head(design, stage.width, size)
    for level in levels[1:-1]:  # down, skip, up
        cost += level * (2 * design.r + 1)
    return cost


def _head(design: Design, channels: int, size: Size) -> Cost:
    norms = 1 if design.unit is Unit.RESNEXT else 2
    return _norm(channels) * norms + _conv(channels, channels, 1, size) * 2


def _tail(design: Design, channels: int, outputs: int) -> Cost:
    if design.last_map is not None:
        return _conv(channels * design.last_map[0] * design.last_map[1], outputs, 1, (1, 1)) + _norm(outputs)
    linear = _conv(channels, outputs, 1, (1, 1)) + Cost(parameters=outputs)  # bias
    return linear + (_norm(channels) if design.tail is Tail.NORM_POOL else Cost())


def _unit(kind: Unit, in_channels: int, out_channels: int, stride: int, size: Size) -> Cost:
    """Return the cost of one unit that gets a map of `size`."""
    out = _strided(size, stride)
    body = _BODIES[kind](in_channels, out_channels, size, out)
    if in_channels == out_channels and stride == 1:
        return body
    shortcut = _conv(in_channels, out_channels, 1, out)
    return body + shortcut + (_norm(out_channels) if kind is Unit.RESNEXT else Cost())


def _pre_activation(in_channels: int, out_channels: int, size: Size, out: Size) -> Cost:
    width = out_channels // 4
    convs = _conv(in_channels, width, 1, size) + _conv(width, width, 3, out) + _conv(width, out_channels, 1, out)
    return convs + _norm(in_channels) + _norm(width) * 2


def _resnext(in_channels: int, out_channels: int, size: Size, out: Size) -> Cost:
    width = out_channels // 2
    grouped = _conv(width, width, 3, out, groups=RESNEXT_GROUPS)
    convs = _conv(in_channels, width, 1, size) + grouped + _conv(width, out_channels, 1, out)
    return convs + _norm(width) * 2 + _norm(out_channels)


def _inception(in_channels: int, out_channels: int, size: Size, out: Size) -> Cost:
    narrow = out_channels // 16
    cost = _norm(in_channels) + _conv(in_channels, narrow, 1, out)
    for width, kernel in ((3 * narrow, 3), (narrow, 5)):
        cost += _conv(in_channels, width, 1, size) + _norm(width) + _conv(width, width, kernel, out)
    return cost + _norm(5 * narrow) + _conv(5 * narrow, out_channels, 1, out)


_BODIES = {Unit.PRE_ACTIVATION: _pre_activation, Unit.RESNEXT: _resnext, Unit.INCEPTION: _inception}


def _conv(in_channels: int, out_channels: int, kernel: int, out: Size, groups: int = 1) -> Cost:
    """Return the cost of a convolution without bias whose output has size `out`."""
    weights = in_channels * out_channels * kernel * kernel // groups
    return Cost(parameters=weights, multiply_adds=weights * out[0] * out[1])


def _norm(channels: int) -> Cost:
    return Cost(parameters=2 * channels, statistics=2 * channels)


def _strided(size: Size, stride: int) -> Size:
    return strided_side(size[0], stride), strided_side(size[1], stride)
