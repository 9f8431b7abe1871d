"""Residual units: the building block of trunks and masks."""

from __future__ import annotations

from collections.abc import Callable

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
