"""The network of weiaicunzai's pytorch-cifar100, which differs from the paper's in more than numbers.

Every convolution has a bias and every unit a shortcut convolution of its raw input. Masks pool the module's input
alone, so they never go below half of its resolution, and upsample to the nearest neighbour.

Source: https://github.com/weiaicunzai/pytorch-cifar100, models/attention.py (structure and semantics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ran_deploy.models.attention import AttentionModule, SoftMask, padded_pool

__all__ = ["CifarDesign", "CifarNetwork"]


@dataclass(frozen=True, kw_only=True)
class CifarDesign:
    """Numbers of the network: `modules` and `depths` (halvings a mask pretends to make) by stage; p, t, r as ever."""

    widths: tuple[int, ...]  # stem, then each stage
    modules: tuple[int, ...]
    depths: tuple[int, ...]
    closing_units: int = 2
    p: int = 1
    t: int = 2
    r: int = 1


class BiasedUnit(nn.Module):
    """Pre-activation bottleneck with biases; the first 1x1 carries the stride, the shortcut sees the raw input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        width = out_channels // 4
        self.residual_function = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, width, 1, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, out_channels, 1),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H / stride, W / stride)
        return self.residual_function(x) + self.shortcut(x)


class HalvedSoftMask(SoftMask):
    """A mask that works at half resolution throughout; of `down` all but the last are read by skips alone.

    Where it pretends three halvings, the third step down is also the skip of the second: the same weights twice.
    """

    def __init__(self, channels: int, depth: int, r: int) -> None:
        head = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
            nn.Sigmoid(),
        )
        super().__init__(
            pool=padded_pool(),
            down=[_units(channels, r) for _ in range(depth)],
            bottom=nn.Sequential(_units(channels, r), _units(channels, r)),
            skip=[BiasedUnit(channels, channels)] if depth > 1 else [],
            up=[_units(channels, r) for _ in range(depth)],
            head=head,
        )

    def forward(self, x: Tensor, trunk: Tensor) -> Tensor:  # two (N, C, H, W) -> (N, C, H, W)
        assert self.pool is not None
        halved = self.pool(x)
        encoded = [down(halved) for down in self.down[:-1]]
        skips = [self.skip[0](encoded[0])] if encoded else []
        skips += [self.down[-1](level) for level in encoded[1:]]
        y = self.bottom(self.down[-1](halved))
        for up, level, skipped in zip(self.up[:-1], reversed(encoded), reversed(skips), strict=True):
            y = F.interpolate(up(y), size=level.shape[-2:]) + skipped
        return self.head(F.interpolate(self.up[-1](y), size=x.shape[-2:]))


class CifarNetwork(nn.Module):
    """Normalised image in, logits out; stages of a stride-2 unit and modules, then units alone."""

    def __init__(self, design: CifarDesign, num_classes: int) -> None:
        super().__init__()
        stem = design.widths[0]
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, padding=1), nn.BatchNorm2d(stem), nn.ReLU())
        self.stages = nn.ModuleList(_stages(design))
        self.classifier = nn.Linear(design.widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, classes)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean((2, 3)))


def _stages(design: CifarDesign) -> Sequence[nn.Module]:
    stages = []
    for index, width in enumerate(design.widths[1:]):
        layers: list[nn.Module] = [BiasedUnit(design.widths[index], width, 2)]
        if index < len(design.modules):
            layers += [_module(design, width, design.depths[index]) for _ in range(design.modules[index])]
        else:
            layers += _units(width, design.closing_units)
        stages.append(nn.Sequential(*layers))
    return stages


def _module(design: CifarDesign, channels: int, depth: int) -> AttentionModule:
    return AttentionModule(
        pre=_units(channels, design.p),
        trunk=_units(channels, design.t),
        mask=HalvedSoftMask(channels, depth, design.r),
        post=_units(channels, design.p),
    )


def _units(channels: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(BiasedUnit(channels, channels) for _ in range(number)))
