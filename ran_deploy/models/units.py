"""Residual units: the building blocks of trunks and masks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# (in_channels, out_channels, stride) -> unit; how trunks of any unit are built.
UnitFactory = Callable[[int, int, int], nn.Module]


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a pointwise convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution with padding 1 and without bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


class PreActivationUnit(nn.Module):
    """Pre-activation bottleneck: x + conv3(conv2(conv1(h))), each after BatchNorm and ReLU.

    The middle width is a quarter of `out_channels` and the 3x3 carries the stride. Where width or stride change the
    shortcut is a 1x1 convolution of the activated h, elsewhere the raw input.

    Source: He et al. 2016, arXiv:1603.05027, section 4; order and widths as in the authors' RAN definitions.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        width = out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv1x1(in_channels, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        keeps_shape = in_channels == out_channels and stride == 1
        self.shortcut = None if keeps_shape else conv1x1(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H / stride, W / stride)
        h = self.bn1(x).relu()
        body = self.conv1(h)
        body = self.conv2(self.bn2(body).relu())
        body = self.conv3(self.bn3(body).relu())
        return body + (x if self.shortcut is None else self.shortcut(h))


class ResNeXtUnit(nn.Module):
    """Post-activation bottleneck of 32 groups: relu(bn3(conv3(conv2(conv1(x)))) + shortcut), each with its BatchNorm.

    The middle width is half of `out_channels`; the grouped 3x3 carries the stride. Where width or stride change the
    shortcut is a 1x1 convolution of x with its own BatchNorm, elsewhere x.

    Source: Xie et al. 2017, arXiv:1611.05431, figure 3c; order and widths as in the authors' AttentionNeXt definitions.
    """

    GROUPS = 32

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        width = out_channels // 2
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=self.GROUPS, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels)
        keeps_shape = in_channels == out_channels and stride == 1
        self.shortcut = (
            None
            if keeps_shape
            else nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
        )

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H / stride, W / stride)
        body = self.bn1(self.conv1(x)).relu()
        body = self.bn2(self.conv2(body)).relu()
        body = self.bn3(self.conv3(body))
        return (body + (x if self.shortcut is None else self.shortcut(x))).relu()


class InceptionUnit(nn.Module):
    """Pre-activation unit whose 3x3 is replaced by three parallel branches: 1x1, 3x3 and 5x5, joined by a 1x1.

    Of the middle width, a quarter of `out_channels`, the branches get a quarter, three quarters and a quarter; the
    last layer of each carries the stride. Shortcut as in the pre-activation unit.

    Source: the paper (arXiv:1704.06904, section 4.2) names AttentionInception-56 without defining it. This is our
    choice: branches of Szegedy et al. 2016, arXiv:1602.07261, with the paper's three layers a unit and widths that come
    near its parameter count; numbers in docs/models.md.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        narrow = out_channels // 16
        wide = 3 * narrow
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.branch1 = conv1x1(in_channels, narrow, stride)
        self.branch3 = self._branch(in_channels, wide, 3, stride)
        self.branch5 = self._branch(in_channels, narrow, 5, stride)
        self.bn3 = nn.BatchNorm2d(wide + 2 * narrow)
        self.conv3 = conv1x1(wide + 2 * narrow, out_channels)
        keeps_shape = in_channels == out_channels and stride == 1
        self.shortcut = None if keeps_shape else conv1x1(in_channels, out_channels, stride)

    @staticmethod
    def _branch(in_channels: int, width: int, kernel: int, stride: int) -> nn.Sequential:
        spatial = nn.Conv2d(width, width, kernel, stride, kernel // 2, bias=False)
        return nn.Sequential(conv1x1(in_channels, width), nn.BatchNorm2d(width), nn.ReLU(), spatial)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H / stride, W / stride)
        h = self.bn1(x).relu()
        body = torch.cat([self.branch1(h), self.branch3(h), self.branch5(h)], 1)
        body = self.conv3(self.bn3(body).relu())
        return body + (x if self.shortcut is None else self.shortcut(h))
