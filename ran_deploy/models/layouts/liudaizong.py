"""The layout of liudaizong's Residual-Attention-Network: three pools in every mask, whatever the stage.

The first version of tengshaofeng's code has the same keys; it stores modules attention_module2_2, 3_2 and 3_3 and never
calls them.

Source: https://github.com/liudaizong/Residual-Attention-Network (keys and forward semantics).
"""

from __future__ import annotations

from dataclasses import replace

from ran_deploy.models.design import Design, Pooling, Stage, Stem
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.softmax_blocks import head_key, is_dead, read_stages, stages_key, trunk_units

NAME = "liudaizong"
FIRST_STAGE = 1
UNCALLED = ("attention_module2_2.", "attention_module3_2.", "attention_module3_3.")


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("conv1.0.weight"), shapes.get("fc.weight")
    if stem is None or classifier is None or stem[-1] != 7:
        return None
    stages = read_stages(shapes, is_small=False)
    depths = [stage.mask_depth for stage in stages if stage.modules]
    if len(depths) < 2 or min(depths) < 3:
        return None
    has_uncalled = [stage.modules for stage in stages if stage.modules] == [1, 2, 3]
    if has_uncalled:
        stages = tuple(replace(stage, modules=min(stage.modules, 1)) for stage in stages)
    design = Design(
        stem=Stem.CONV7_POOL3, stem_width=stem[0], stages=stages, pooling=Pooling.PADDED, t=trunk_units(shapes)
    )
    return _reading(design, classifier[0], has_uncalled=has_uncalled)


def typical() -> Reading:
    stages = [Stage(width=width, stride=1 + (width > 256), modules=1, mask_depth=3) for width in (256, 512, 1024)]
    stages.append(Stage(width=2048, stride=2, modules=0, closing_units=2))
    design = Design(stem=Stem.CONV7_POOL3, stem_width=64, stages=tuple(stages), pooling=Pooling.PADDED)
    return _reading(design, 10, has_uncalled=False)


def _reading(design: Design, num_classes: int, *, has_uncalled: bool) -> Reading:
    return reading_of(
        design,
        num_classes,
        architecture=f"attention-{design.trunk_depth}",
        key_of=lambda key: _key(key, design),
        is_dead=lambda key: is_dead(key) or (has_uncalled and key.startswith(UNCALLED)),
    )


def _key(key: str, design: Design) -> str:
    if not key.startswith("stages."):
        return head_key(key)
    return stages_key(key.removeprefix("stages."), design.stages, FIRST_STAGE, is_small=False)
