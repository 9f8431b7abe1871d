"""The layout of FaceX-Zoo's ResidualAttentionNet, which embeds faces: 512 features from 112x112 BGR.

Source: https://github.com/JDAI-CV/FaceX-Zoo, backbone/AttentionNets.py (keys and forward semantics).
"""

from __future__ import annotations

import math
from dataclasses import replace

from ran_deploy.manifest import Task
from ran_deploy.models.design import Design, MaskJoin, Pooling, Stage, Stem, Tail
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.keys import count, matches, stage_and_position
from ran_deploy.models.layouts.softmax_blocks import is_dead, mask_depth, module_key, trunk_units, unit_key
from ran_deploy.preprocessing import ChannelOrder, Preprocessing

NAME = "facexzoo"
# (x - 127.5) / 128 of BGR, as FaceX-Zoo's loaders have it.
MEAN, STD = (127.5 / 255,) * 3, (128 / 255,) * 3


def read(shapes: Shapes) -> Reading | None:
    stem, linear = shapes.get("conv1.0.weight"), shapes.get("output_layer.1.weight")
    body = sorted({int(match[1]) for match in matches(shapes, r"attention_body\.(\d+)\.")})
    if stem is None or linear is None or not count(shapes, r"attention_body\.(\d+)\.trunk_branches"):
        return None
    stages = _stages(shapes, body)
    positions = linear[1] // stages[-1].width if stages[-1].width else 0
    return _reading(_design(stem[0], stages, _map_of(positions), trunk_units(shapes)), linear[0])


def typical() -> Reading:
    stages = [Stage(width=256 << i, stride=1 + (i > 0), modules=1, mask_depth=3 - i) for i in range(3)]
    stages.append(Stage(width=2048, stride=2, modules=0, closing_units=2))
    return _reading(_design(64, tuple(stages), (7, 7), 2), 512)


def _design(stem_width: int, stages: tuple[Stage, ...], last_map: tuple[int, int], t: int) -> Design:
    return Design(
        stem=Stem.CONV7,
        stem_width=stem_width,
        stages=stages,
        pooling=Pooling.PADDED,
        join=MaskJoin.DENSE,
        tail=Tail.FLATTEN,
        last_map=last_map,
        t=t,
    )


def _stages(shapes: Shapes, body: list[int]) -> tuple[Stage, ...]:
    """Return the stages of the flat sequence: a unit of another width starts one."""
    stages: list[Stage] = []
    for index in body:
        element = rf"attention_body\.{index}\."
        width = shapes.get(f"attention_body.{index}.conv3.weight")
        if width is not None and (not stages or stages[-1].width != width[0]):
            stages.append(Stage(width=width[0], stride=2 if stages else 1, modules=0))
        elif width is not None:
            last = stages.pop()
            stages.append(replace(last, closing_units=last.closing_units + 1))
        elif stages:
            last = stages.pop()
            stages.append(replace(last, modules=last.modules + 1, mask_depth=mask_depth(shapes, element)))
    return tuple(stages)


def _map_of(positions: int) -> tuple[int, int]:
    """Return the most nearly square (height, width) of that many positions, the taller one of two."""
    width = next((n for n in range(math.isqrt(positions), 0, -1) if positions % n == 0), 0)
    return (positions // width, width) if width else (0, 0)


def _reading(design: Design, features: int) -> Reading:
    assert design.last_map is not None
    height, width = design.last_map
    size = (height * design.reduction, width * design.reduction)
    return reading_of(
        design,
        features,
        architecture=f"attention-{design.trunk_depth}-embedding",
        key_of=lambda key: _key(key, design),
        is_dead=is_dead,
        input_size=size,
        task=Task.EMBEDDING,
        preprocessing=Preprocessing(crop=size, resize=size, channel_order=ChannelOrder.BGR, mean=MEAN, std=STD),
    )


def _key(key: str, design: Design) -> str:
    head, _, rest = key.partition(".")
    if head != "stages":
        return {"stem": "conv1", "embedding": "output_layer"}[head] + "." + rest
    stage, position, rest = stage_and_position(rest)
    before = sum(1 + s.modules + s.closing_units for s in design.stages[:stage])
    element = f"attention_body.{before + position}"
    current = design.stages[stage]
    if 1 <= position <= current.modules:
        return f"{element}.{module_key(rest, current.mask_depth)}"
    return f"{element}.{unit_key(rest)}"
