"""The Residual Attention Network: a stem, stages of units and attention modules, a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ran_deploy.models.attention import (
    AttentionModule,
    DenselyJoinedSoftMask,
    MaskHead,
    SoftMask,
    ceil_pool,
    padded_pool,
    units,
)
from ran_deploy.models.design import Design, MaskJoin, Pooling, Stage, Stem
from ran_deploy.models.units import PreActivationUnit, UnitFactory

POOLS = {Pooling.CEIL: ceil_pool, Pooling.PADDED: padded_pool}
MASKS = {MaskJoin.SKIP: SoftMask, MaskJoin.DENSE: DenselyJoinedSoftMask}


class ResidualAttentionNetwork(nn.Module):
    """Normalised image in, logits out. Source: Wang et al. 2017, arXiv:1704.06904, table 2."""

    def __init__(self, *, stem: nn.Module, stages: Sequence[nn.Module], channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, classes)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.classifier(self.norm(x).relu().mean((2, 3)))


def build_network(design: Design, num_classes: int, unit: UnitFactory = PreActivationUnit) -> ResidualAttentionNetwork:
    """Return the network of `design` with PyTorch's default initialisation."""
    stages, channels = [], design.stem_width
    for stage in design.stages:
        stages.append(build_stage(design, stage, channels, unit))
        channels = stage.width
    return ResidualAttentionNetwork(stem=build_stem(design), stages=stages, channels=channels, num_classes=num_classes)


def build_stem(design: Design) -> nn.Sequential:
    """Return the stem: 3 channels to `design.stem_width`."""
    conv = {
        Stem.CONV7_POOL3: lambda: nn.Conv2d(3, design.stem_width, 7, 2, 3, bias=False),
        Stem.CONV5_POOL2: lambda: nn.Conv2d(3, design.stem_width, 5, 1, 2, bias=False),
        Stem.CONV5_STRIDE2: lambda: nn.Conv2d(3, design.stem_width, 5, 2, 2, bias=False),
        Stem.CONV3: lambda: nn.Conv2d(3, design.stem_width, 3, 1, 1, bias=False),
    }[design.stem]()
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(design.stem_width), nn.ReLU()]
    if design.stem is Stem.CONV7_POOL3:
        layers.append(POOLS[design.pooling]())
    elif design.stem is Stem.CONV5_POOL2:
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def build_stage(design: Design, stage: Stage, in_channels: int, unit: UnitFactory) -> nn.Sequential:
    """Return the entry unit, the attention modules and the closing units of one stage."""
    entry = unit(in_channels, stage.width, stage.stride)
    modules = [build_module(design, stage, unit) for _ in range(stage.modules)]
    return nn.Sequential(entry, *modules, *units(stage.closing_units, stage.width, unit))


def build_module(design: Design, stage: Stage, unit: UnitFactory) -> AttentionModule:
    """Return one attention module of width `stage.width`."""
    channels, levels = stage.width, max(stage.mask_depth - 1, 0)
    mask = MASKS[design.join](
        pool=POOLS[design.pooling]() if stage.mask_depth else None,
        down=[units(design.r, channels, unit) for _ in range(levels)],
        bottom=units(2 * design.r, channels, unit),
        skip=[unit(channels, channels, 1) for _ in range(levels)],
        up=[units(design.r, channels, unit) for _ in range(levels)],
        head=MaskHead(channels),
    )
    return AttentionModule(
        pre=units(design.p, channels, unit),
        trunk=units(design.t, channels, unit),
        mask=mask,
        post=units(design.p, channels, unit),
    )


@contextmanager
def recorded_masks(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that each forward pass fills with {module path of the mask: (N, C, H, W) in (0, 1)}."""
    masks: dict[str, Tensor] = {}

    def record(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            masks[name] = output

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [record(name) for name, part in module.named_modules() if isinstance(part, SoftMask)]
    try:
        yield masks
    finally:
        for handle in handles:
            handle.remove()
