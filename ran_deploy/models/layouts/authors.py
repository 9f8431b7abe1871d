"""The paper's authors' network definitions, by Caffe layer name; AttentionNeXt is in authors_next.py.

A BatchNorm is named after the tensor it normalises: '<unit>/bn' reads the output of that unit, so the leading BatchNorm
of a unit carries the name of whatever comes before it. Leaves: weight; bn_weight, bn_bias, running_mean, running_var.

Source: https://github.com/fwang91/residual-attention-network (layer names and order).
"""

from __future__ import annotations

from ran_deploy.models.design import Design, Stage, Stem
from ran_deploy.models.layouts import Reading, Shapes, authors_next, reading_of
from ran_deploy.models.layouts.caffe import STAGE_LETTERS, caffe_key
from ran_deploy.models.layouts.keys import count, stage_and_position
from ran_deploy.models.zoo import ARCHITECTURES, name_of

NAME = "authors"
CLOSING_UNITS = 3
UNIT_CONVS = {
    "conv1": "branch1/conv1_1x1",
    "bn2": "branch1/conv1_1x1/bn",
    "conv2": "branch1/conv2_3x3",
    "bn3": "branch1/conv2_3x3/bn",
    "conv3": "branch1/conv3_1x1",
    "shortcut": "branch2/conv1_1x1",
}


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("conv1.weight"), shapes.get("classifier.weight")
    if stem is None or classifier is None or not count(shapes, r"(AttentionA_\d+)/"):
        return None
    if authors_next.is_next(shapes):
        return authors_next.read(shapes)
    stages = [
        Stage(
            width=shapes.get(f"pre_res_{index + 1}/branch1/conv3_1x1.weight", (0,))[0],
            stride=1 if index == 0 else 2,
            modules=count(shapes, rf"Attention{letter}_(\d+)/"),
            mask_depth=count(shapes, rf"Attention{letter}_1/mask/down_sample/(pool\d)"),
        )
        for index, letter in enumerate(STAGE_LETTERS)
    ]
    last = shapes.get("post_res_4_1/branch1/conv3_1x1.weight", (0,))[0]
    stages.append(Stage(width=last, stride=2, modules=0, closing_units=CLOSING_UNITS - 1))
    return _reading(Design(stem=Stem.CONV7_POOL3, stem_width=stem[0], stages=tuple(stages)), classifier[0])


def typical() -> Reading:
    return _reading(ARCHITECTURES["attention-56"].design, 1000)


def _reading(design: Design, num_classes: int) -> Reading:
    return reading_of(design, num_classes, architecture=name_of(design), key_of=lambda key: _key(key, design))


def _key(key: str, design: Design) -> str:
    head, _, rest = key.partition(".")
    if head == "stem":
        index, _, leaf = rest.partition(".")
        return caffe_key("conv1" if index == "0" else "conv1/bn", leaf)
    if head == "norm":
        return caffe_key("post_res_4_3/bn", rest)
    if head == "classifier":
        return key
    return _stage_key(*stage_and_position(rest), design)


def _stage_key(stage: int, position: int, rest: str, design: Design) -> str:
    if stage == len(STAGE_LETTERS):
        unit = f"post_res_4_{position + 1}"
        return _unit_key(unit, f"post_res_4_{position}" if position else _last_tensor(stage - 1, design), rest)
    if position == 0:
        source = _last_tensor(stage - 1, design) if stage else "pool1_3x3_s2"
        return _unit_key(f"pre_res_{stage + 1}", source, rest)
    letter = STAGE_LETTERS[stage]
    source = f"Attention{letter}_{position - 1}" if position > 1 else f"pre_res_{stage + 1}"
    return _module_key(f"Attention{letter}_{position}", source, design.stages[stage].mask_depth, rest)


def _last_tensor(stage: int, design: Design) -> str:
    return f"Attention{STAGE_LETTERS[stage]}_{design.stages[stage].modules}"


def _module_key(module: str, source: str, depth: int, rest: str) -> str:
    part, _, rest = rest.partition(".")
    if part == "mask":
        return _mask_key(f"{module}/mask", depth, rest)
    index, _, rest = rest.partition(".")
    if part == "pre":
        return _unit_key(f"{module}/trunk/res1", source, rest)
    if part == "trunk":
        return _unit_key(f"{module}/trunk/res{int(index) + 2}", f"{module}/trunk/res{int(index) + 1}", rest)
    return _unit_key(module, f"{module}/fusion", rest)


def _mask_key(mask: str, depth: int, rest: str) -> str:
    part, index, rest = rest.split(".", 2)
    level = int(index) + 1
    down = f"{mask}/down_sample"
    if part == "head":
        names = ["up_sample/interp_1/bn", "", "linear_1", "linear_1/bn", "", "linear_2"]
        return caffe_key(f"{mask}/{names[int(index)]}", rest)
    if part == "bottom":
        source = f"{down}/res{depth}_1" if level == 2 else f"{down}/pool{depth}_3x3_s2"
        return _unit_key(f"{down}/res{depth}_{level}", source, rest)
    if part == "skip":
        return _unit_key(f"{mask}/skip/res{level}", f"{down}/res{level}_1", rest)
    rest = rest.partition(".")[2]
    if part == "down":
        return _unit_key(f"{down}/res{level}_1", f"{down}/pool{level}_3x3_s2", rest)
    return _unit_key(f"{mask}/up_sample/res{level}_1", f"{mask}/up_sample{level}", rest)


def _unit_key(unit: str, source: str, rest: str) -> str:
    part, _, leaf = rest.partition(".")
    return caffe_key(f"{source}/bn" if part == "bn1" else f"{unit}/{UNIT_CONVS[part]}", leaf)
