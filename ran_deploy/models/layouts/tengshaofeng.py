"""The layout of tengshaofeng's ResidualAttentionNetwork-pytorch and its forks, for 448, 224 and 32 pixel inputs.

Source: https://github.com/tengshaofeng/ResidualAttentionNetwork-pytorch (keys and forward semantics).
"""

from __future__ import annotations

from ran_deploy.models.design import Design, MaskJoin, Pooling, Stage, Stem
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.keys import count, matches
from ran_deploy.models.layouts.softmax_blocks import head_key, is_dead, read_stages, stages_key, trunk_units

NAME = "tengshaofeng"
STEMS = {7: Stem.CONV7_POOL3, 5: Stem.CONV5_POOL2, 3: Stem.CONV3}
LAST_SIDE = 7  # of the map its average pool takes, in the nets for large pictures


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("conv1.0.weight"), shapes.get("fc.weight")
    if stem is None or classifier is None or stem[-1] not in STEMS or not count(shapes, r"attention_module(\d)"):
        return None
    stages = read_stages(shapes, is_small=stem[-1] != 7)
    depths = [stage.mask_depth for stage in stages if stage.modules]
    if len(depths) > 1 and min(depths) > 2:
        return None  # liudaizong's: as deep in every stage
    design = Design(
        stem=STEMS[stem[-1]],
        stem_width=stem[0],
        stages=stages,
        pooling=Pooling.PADDED,
        join=MaskJoin.DENSE,
        t=trunk_units(shapes),
    )
    first = min(int(match[1]) for match in matches(shapes, r"attention_module(\d+)"))
    return _reading(design, classifier[0], first)


def typical() -> Reading:
    widths_depths = ((256, 3), (512, 2), (1024, 1))
    stages = [Stage(width=w, stride=1 + (k < 3), modules=1, mask_depth=k) for w, k in widths_depths]
    stages.append(Stage(width=2048, stride=2, modules=0, closing_units=2))
    design = Design(
        stem=Stem.CONV7_POOL3,
        stem_width=64,
        stages=tuple(stages),
        pooling=Pooling.PADDED,
        join=MaskJoin.DENSE,
    )
    return _reading(design, 10, 1)


def _reading(design: Design, num_classes: int, first: int) -> Reading:
    is_small = design.stem is not Stem.CONV7_POOL3
    side = 32 if is_small else LAST_SIDE * design.reduction
    return reading_of(
        design,
        num_classes,
        architecture=f"attention-{design.trunk_depth}" + ("-cifar" if is_small else ""),
        key_of=lambda key: _key(key, design, first, is_small=is_small),
        is_dead=is_dead,
        input_size=(side, side),
    )


def _key(key: str, design: Design, first: int, *, is_small: bool) -> str:
    if not key.startswith("stages."):
        return head_key(key)
    return stages_key(key.removeprefix("stages."), design.stages, first, is_small=is_small)
