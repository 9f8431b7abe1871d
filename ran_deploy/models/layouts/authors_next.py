"""The paper's authors' AttentionNeXt definitions, by Caffe layer name: a BatchNorm is named after its convolution.

Source: https://github.com/fwang91/residual-attention-network (layer names and order).
"""

from __future__ import annotations

from ran_deploy.models.design import Design, Stage, Stem, Tail, Unit
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.caffe import STAGE_LETTERS, caffe_key
from ran_deploy.models.layouts.keys import count, stage_and_position
from ran_deploy.models.zoo import name_of

__all__ = ["is_next", "read"]

CONVS = {"conv1": "branch1/conv1_1x1", "conv2": "branch1/conv2_3x3", "conv3": "branch1/conv3_1x1"}
SHORTCUT = "branch2/conv1_1x1"
HEAD = {"0": "linear_1", "1": "linear_1/bn", "3": "linear_2"}


def is_next(shapes: Shapes) -> bool:
    """Tell AttentionNeXt from the other definitions: its masks go `down`, theirs `down_sample`."""
    return count(shapes, r"Attention[A-C]_\d+/mask/(down)/") > 0


def read(shapes: Shapes) -> Reading:
    """Return what keys and shapes say, even with some keys missing."""
    stages = [
        Stage(
            width=shapes.get(f"pre_res_{index + 1}/branch1/conv3_1x1.weight", (0,))[0],
            stride=1 if index == 0 else 2,
            modules=count(shapes, rf"Attention{letter}_(\d+)/"),
            mask_depth=count(shapes, rf"Attention{letter}_1/mask/down/res(\d)_1/"),
        )
        for index, letter in enumerate(STAGE_LETTERS)
    ]
    closing = count(shapes, r"post_res_4_(\d+)/") - 1
    last = shapes.get("post_res_4_1/branch1/conv3_1x1.weight", (0,))[0]
    stages.append(Stage(width=last, stride=2, modules=0, closing_units=closing))
    design = Design(
        stem=Stem.CONV7_POOL3,
        stem_width=shapes["conv1.weight"][0],
        stages=tuple(stages),
        unit=Unit.RESNEXT,
        tail=Tail.POOL,
        t=count(shapes, r"AttentionA_1/trunk/res(\d+)/") - 1,
    )
    num_classes = shapes["classifier.weight"][0]
    return reading_of(design, num_classes, architecture=name_of(design), key_of=lambda key: _key(key, design))


def _key(key: str, design: Design) -> str:
    head, _, rest = key.partition(".")
    if head == "classifier":
        return key
    if head == "stem":
        index, _, leaf = rest.partition(".")
        return caffe_key("conv1" if index == "0" else "conv1/bn", leaf)
    stage, position, rest = stage_and_position(rest)
    if stage == len(STAGE_LETTERS):
        return _unit_key(f"post_res_4_{position + 1}", rest)
    if position == 0:
        return _unit_key(f"pre_res_{stage + 1}", rest)
    module = f"Attention{STAGE_LETTERS[stage]}_{position}"
    part, index, rest = rest.split(".", 2)
    if part == "mask":
        return _mask_key(f"{module}/mask", design.stages[stage].mask_depth, index, rest)
    unit = {"pre": f"{module}/trunk/res1", "trunk": f"{module}/trunk/res{int(index) + 2}", "post": module}[part]
    return _unit_key(unit, rest)


def _mask_key(mask: str, depth: int, part: str, rest: str) -> str:
    index, _, rest = rest.partition(".")
    if part == "head":
        return caffe_key(f"{mask}/{HEAD[index]}", rest)
    level = int(index) + 1
    if part == "bottom":
        return _unit_key(f"{mask}/down/res{depth}_{level}", rest)
    if part == "skip":
        return _unit_key(f"{mask}/skip/res{level}", rest)
    return _unit_key(f"{mask}/{part}/res{level}_1", rest.partition(".")[2])


def _unit_key(unit: str, rest: str) -> str:
    part, _, leaf = rest.partition(".")
    if part == "shortcut":
        index, _, leaf = leaf.partition(".")
        return caffe_key(f"{unit}/{SHORTCUT}" + ("/bn" if index == "1" else ""), leaf)
    layer = f"{unit}/{CONVS['conv' + part[-1]]}"
    return caffe_key(f"{layer}/bn" if part.startswith("bn") else layer, leaf)
