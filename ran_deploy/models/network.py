"""The Residual Attention Network: a stem, stages of units and attention modules, a classifier or an embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ran_deploy.errors import CheckpointError
from ran_deploy.models.attention import (
    AttentionModule,
    ChannelAttention,
    DenselyJoinedSoftMask,
    MaskHead,
    NaiveAttentionModule,
    SoftMask,
    SpatialAttention,
    ceil_pool,
    padded_pool,
    units,
)
from ran_deploy.models.design import (
    STEM_CONVS,
    Attention,
    Design,
    Learning,
    MaskJoin,
    Pooling,
    Stage,
    Stem,
    Tail,
    Unit,
    design_from_json,
    design_to_json,
)
from ran_deploy.models.units import InceptionUnit, PreActivationUnit, ResNeXtUnit, UnitFactory

POOLS = {Pooling.CEIL: ceil_pool, Pooling.PADDED: padded_pool}
MASKS = {MaskJoin.SKIP: SoftMask, MaskJoin.DENSE: DenselyJoinedSoftMask}
UNITS: dict[Unit, UnitFactory] = {
    Unit.PRE_ACTIVATION: PreActivationUnit,
    Unit.RESNEXT: ResNeXtUnit,
    Unit.INCEPTION: InceptionUnit,
}
ATTENTIONS: dict[Attention, Callable[[], nn.Module]] = {
    Attention.MIXED: nn.Sigmoid,
    Attention.CHANNEL: ChannelAttention,
    Attention.SPATIAL: SpatialAttention,
}
DESIGN_KEY = "_extra_state"  # where PyTorch puts what get_extra_state returns
MODULES = {Learning.RESIDUAL: AttentionModule, Learning.NAIVE: NaiveAttentionModule}


class ResidualAttentionNetwork(nn.Module):
    """Normalised image in, logits or an embedding out. Source: Wang et al. 2017, arXiv:1704.06904, table 2.

    `design` is stored in the state dict, so that a checkpoint tells what its keys and shapes cannot.
    """

    def __init__(self, design: Design, *, stem: nn.Module, stages: Sequence[nn.Module], outputs: int) -> None:
        super().__init__()
        self.design = design
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        channels = design.stages[-1].width
        self.norm = nn.BatchNorm2d(channels) if design.tail is Tail.NORM_POOL else None
        if design.last_map is None:
            self.classifier = nn.Linear(channels, outputs)
        else:
            height, width = design.last_map
            self.embedding = nn.Sequential(
                nn.Flatten(), nn.Linear(channels * height * width, outputs, bias=False), nn.BatchNorm1d(outputs)
            )

    def get_extra_state(self) -> Tensor:
        """Return the design as bytes, for the state dict."""
        return torch.tensor(list(design_to_json(self.design)), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Raise ValueError unless `state` is of this very design."""
        if stored_design(state) != self.design:
            raise ValueError("The state dict is of another network design; build the network from that design.")

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W) -> (N, outputs)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        if self.design.last_map is not None:
            return self.embedding(x)
        if self.norm is not None:
            x = self.norm(x).relu()
        return self.classifier(x.mean((2, 3)))


def stored_design(state: Tensor) -> Design:
    """Return the design in the bytes of `get_extra_state`, also where all of a state dict was cast to float.

    Raises: CheckpointError.
    """
    if state.is_floating_point() and bool(((state >= 0) & (state < 256) & (state == state.round())).all()):
        state = state.to(torch.uint8)  # exact: even bfloat16 has every integer up to 256
    if state.dtype != torch.uint8:
        kind = str(state.dtype).removeprefix("torch.")
        raise CheckpointError(f"The network design stored in the checkpoint ({DESIGN_KEY}) is {kind}; expected bytes.")
    return design_from_json(bytes(state.flatten().tolist()))


def build_network(design: Design, outputs: int) -> ResidualAttentionNetwork:
    """Return the network of `design` with PyTorch's default initialisation.

    `outputs` is the number of classes, or of an embedding's features.
    """
    stages, channels = [], design.stem_width
    for stage in design.stages:
        stages.append(build_stage(design, stage, channels))
        channels = stage.width
    return ResidualAttentionNetwork(design, stem=build_stem(design), stages=stages, outputs=outputs)


def build_stem(design: Design) -> nn.Sequential:
    """Return the stem: 3 channels to `design.stem_width`."""
    kernel, stride = STEM_CONVS[design.stem]
    width = design.stem_width
    conv = nn.Conv2d(3, width, kernel, stride, kernel // 2, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(width), nn.ReLU()]
    if design.stem is Stem.CONV7_POOL3:
        layers.append(POOLS[design.pooling]())
    elif design.stem is Stem.CONV5_POOL2:
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def build_stage(design: Design, stage: Stage, in_channels: int) -> nn.Sequential:
    """Return the entry unit, the attention modules and the closing units of one stage."""
    unit = UNITS[design.unit]
    entry = unit(in_channels, stage.width, stage.stride)
    modules = [build_module(design, stage) for _ in range(stage.modules)]
    return nn.Sequential(entry, *modules, *units(stage.closing_units, stage.width, unit))


def build_module(design: Design, stage: Stage) -> AttentionModule:
    """Return one attention module of width `stage.width`."""
    unit, channels, levels = UNITS[design.unit], stage.width, max(stage.mask_depth - 1, 0)
    mask = MASKS[design.join](
        pool=POOLS[design.pooling]() if stage.mask_depth else None,
        down=[units(design.r, channels, unit) for _ in range(levels)],
        bottom=units(design.bottom_units(stage), channels, unit),
        skip=[unit(channels, channels, 1) for _ in range(levels)],
        up=[units(design.r, channels, unit) for _ in range(levels)],
        head=MaskHead(channels, ATTENTIONS[design.attention](), activated=design.unit is Unit.RESNEXT),
    )
    return MODULES[design.learning](
        pre=units(design.p, channels, unit),
        trunk=units(design.t, channels, unit),
        mask=mask,
        post=units(design.units_after, channels, unit),
    )


@contextmanager
def recorded_masks(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that each forward pass fills with {module path of the mask: (N, C, H, W)}."""
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
