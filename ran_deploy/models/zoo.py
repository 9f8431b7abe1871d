"""Named networks: the published ones and the compact one that ships with this project."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from ran_deploy.errors import ConfigError
from ran_deploy.models.design import Attention, Design, Learning, Stage, Stem, Tail, Unit

__all__ = ["ARCHITECTURES", "Architecture", "architecture_named", "cifar", "compact", "imagenet", "name_of", "named"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A named design with the class count and input size (height, width) it was published with."""

    design: Design
    num_classes: int
    input_size: tuple[int, int]
    source: str


def imagenet(modules: tuple[int, int, int], unit: Unit = Unit.PRE_ACTIVATION) -> Architecture:
    """Return an ImageNet net with that many attention modules in stages 1, 2 and 3."""
    first, second, third = modules
    source = "arXiv:1704.06904, table 2; the authors' network definitions"
    if unit is Unit.INCEPTION:
        source = "arXiv:1704.06904, section 4.2 (name and totals); units ours"
    return Architecture(
        design=Design(
            stem=Stem.CONV7_POOL3,
            stem_width=64,
            stages=(
                Stage(width=256, stride=1, modules=first, mask_depth=3),
                Stage(width=512, stride=2, modules=second, mask_depth=2),
                Stage(width=1024, stride=2, modules=third, mask_depth=1),
                Stage(width=2048, stride=2, modules=0, closing_units=2),
            ),
            unit=unit,
            tail=Tail.POOL if unit is Unit.RESNEXT else Tail.NORM_POOL,  # post-activation units end in a ReLU
        ),
        num_classes=1000,
        input_size=(224, 224),
        source=source,
    )


def cifar(modules: int, p: int = 1, t: int = 2, r: int = 1) -> Architecture:
    """Return a CIFAR net with `modules` attention modules a stage: depth 9 m (2 p + t) + 20, so 36 m + 20.

    The paper gives no stage widths: these reproduce its parameter count for Attention-236 (5.1 M) and come close for
    Attention-92 (1.84 M against 1.9 M), not for Attention-452 (10.2 M against 8.6 M).
    """
    return Architecture(
        design=Design(
            stem=Stem.CONV3,
            stem_width=16,
            stages=(
                Stage(width=64, stride=1, modules=modules, mask_depth=3, closing_units=1),
                Stage(width=128, stride=2, modules=modules, mask_depth=2, closing_units=1),
                Stage(width=256, stride=2, modules=modules, mask_depth=1, closing_units=1),
            ),
            p=p,
            t=t,
            r=r,
        ),
        num_classes=10,
        input_size=(32, 32),
        source="arXiv:1704.06904, section 4.1 (depth); widths ours",
    )


def with_attention(architecture: Architecture, attention: Attention) -> Architecture:
    """Return the net with another mask activation: f2 or f3 of section 3.2, compared in table 1."""
    return _variant(architecture, "1", replace(architecture.design, attention=attention))


def naive(architecture: Architecture) -> Architecture:
    """Return the net with M T in place of (1 + M) T, compared in table 3."""
    return _variant(architecture, "3", replace(architecture.design, learning=Learning.NAIVE))


def local(architecture: Architecture) -> Architecture:
    """Return the net whose masks are three units that never pool (section 4.1), compared in table 4."""
    stages = tuple(replace(stage, mask_depth=0) for stage in architecture.design.stages)
    return _variant(architecture, "4", replace(architecture.design, stages=stages, unpooled_units=3))


def _variant(architecture: Architecture, table: str, design: Design) -> Architecture:
    return replace(architecture, design=design, source=f"arXiv:1704.06904, table {table}; widths ours")


def compact() -> Architecture:
    """Return our smallest RAN: one module in each of three stages, at a quarter of the CIFAR nets' resolution."""
    return Architecture(
        design=Design(
            stem=Stem.CONV5_STRIDE2,
            stem_width=32,
            stages=(
                Stage(width=64, stride=1, modules=1, mask_depth=2),
                Stage(width=128, stride=2, modules=1, mask_depth=1),
                Stage(width=320, stride=2, modules=1, mask_depth=1),
            ),
        ),
        num_classes=10,
        input_size=(32, 32),
        source="this project",
    )


ARCHITECTURES = {
    "attention-56": imagenet((1, 1, 1)),
    "attention-92": imagenet((1, 2, 3)),
    "attentionnext-56": imagenet((1, 1, 1), Unit.RESNEXT),
    "attentionnext-92": imagenet((1, 2, 3), Unit.RESNEXT),
    "attentioninception-56": imagenet((1, 1, 1), Unit.INCEPTION),
    "cifar-attention-56": cifar(1),
    "cifar-attention-92": cifar(2),
    "cifar-attention-128": cifar(3),
    "cifar-attention-164": cifar(4),
    "cifar-attention-236": cifar(6),
    "cifar-attention-452": cifar(6, p=2, t=4, r=3),
    "cifar-attention-56-channel": with_attention(cifar(1), Attention.CHANNEL),
    "cifar-attention-56-spatial": with_attention(cifar(1), Attention.SPATIAL),
    "cifar-attention-56-local": local(cifar(1)),
    "cifar-attention-56-naive": naive(cifar(1)),
    "cifar-attention-92-naive": naive(cifar(2)),
    "cifar-attention-128-naive": naive(cifar(3)),
    "cifar-attention-164-naive": naive(cifar(4)),
    "compact-attention": compact(),
}


def architecture_named(name: str) -> Architecture:
    """Return the zoo's network of that name. Raises: ConfigError, which names those nearest."""
    if name not in ARCHITECTURES:
        close = difflib.get_close_matches(name.lower(), ARCHITECTURES, n=3)
        meant = f"did you mean {', '.join(close)}? " if close else ""
        raise ConfigError(f"There is no architecture {name!r}; {meant}ran-export --list shows all.")
    return ARCHITECTURES[name]


def name_of(design: Design) -> str:
    """Return the zoo's name of `design`, or one made of its depth and choices where the zoo has none."""
    if (name := named(design)) is not None:
        return name
    made_up = [FAMILY_NAMES[design.unit], str(design.trunk_depth)]
    made_up += [design.attention.value] if design.attention is not Attention.MIXED else []
    made_up += [design.learning.value] if design.learning is not Learning.RESIDUAL else []
    name = "-".join(made_up)
    return f"custom-{name}" if name in ARCHITECTURES else name


def named(design: Design) -> str | None:
    """Return the zoo's name of `design`, None if it has none."""
    return next((name for name, architecture in ARCHITECTURES.items() if architecture.design == design), None)


FAMILY_NAMES = {
    Unit.PRE_ACTIVATION: "attention",
    Unit.RESNEXT: "attentionnext",
    Unit.INCEPTION: "attentioninception",
}
