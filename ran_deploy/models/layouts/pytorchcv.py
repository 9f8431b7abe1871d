"""The layout of pytorchcv's ResAttNet at any depth.

Source: https://github.com/osmr/imgclsmob, pytorchcv/models/resattnet.py (keys and forward semantics).
"""

from __future__ import annotations

from ran_deploy.models.design import Design, MaskJoin, Pooling, Stage, Stem
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.keys import count, stage_and_position

NAME = "pytorchcv"
STEM_KEYS = {"0": "conv", "1": "bn"}
HEAD_KEYS = {"0": "conv1.bn", "2": "conv1.conv", "3": "conv2.bn", "5": "conv2.conv"}


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("features.init_block.conv.conv.weight"), shapes.get("output.weight")
    if stem is None or classifier is None or not count(shapes, r"features\.stage\d+\.unit\d+\.(hg)\."):
        return None
    stages = tuple(_stage(shapes, index) for index in range(count(shapes, r"features\.stage(\d+)\.")))
    module = r"features\.stage\d+\.unit\d+\."
    design = _design(
        stem[0],
        stages,
        p=count(shapes, module + r"init_blocks\.blocks\.block(\d+)\.") or 1,
        t=count(shapes, module + r"hg\.skip_seq\.skip1\.blocks\.block(\d+)\.") or 2,
        r=count(shapes, module + r"hg\.down_seq\.down1\.res_blocks\.blocks\.block(\d+)\.") or 1,
    )
    return _reading(design, classifier[0])


def typical() -> Reading:
    widths_depths = ((256, 3), (512, 2), (1024, 1))
    stages = [Stage(width=w, stride=1 + (k < 3), modules=1, mask_depth=k) for w, k in widths_depths]
    return _reading(_design(64, (*stages, Stage(width=2048, stride=2, modules=0, closing_units=2)), 1, 2, 1), 1000)


def _design(stem_width: int, stages: tuple[Stage, ...], p: int, t: int, r: int) -> Design:
    return Design(
        stem=Stem.CONV7_POOL3,
        stem_width=stem_width,
        stages=stages,
        pooling=Pooling.PADDED,
        join=MaskJoin.DENSE,
        p=p,
        t=t,
        r=r,
        after=1,
    )


def _stage(shapes: Shapes, index: int) -> Stage:
    stage = rf"features\.stage{index + 1}\."
    modules = count(shapes, stage + r"unit(\d+)\.hg\.")
    return Stage(
        width=shapes.get(f"features.stage{index + 1}.unit1.body.conv3.conv.weight", (0,))[0],
        stride=1 if index == 0 else 2,
        modules=modules,
        mask_depth=count(shapes, stage + r"unit2\.hg\.down_seq\.down(\d+)\."),
        closing_units=max(count(shapes, stage + r"unit(\d+)\.") - modules - 1, 0),
    )


def _reading(design: Design, num_classes: int) -> Reading:
    name = f"attention-{design.trunk_depth}"
    return reading_of(design, num_classes, architecture=name, key_of=lambda key: _key(key, design))


def _key(key: str, design: Design) -> str:
    head, _, rest = key.partition(".")
    if head == "stem":
        index, _, leaf = rest.partition(".")
        return f"features.init_block.conv.{STEM_KEYS[index]}.{leaf}"
    if head != "stages":
        return {"norm": "features.post_activ.bn", "classifier": "output"}[head] + "." + rest
    stage, position, rest = stage_and_position(rest)
    unit = f"features.stage{stage + 1}.unit{position + 1}"
    if not 1 <= position <= design.stages[stage].modules:
        return f"{unit}.{_unit_key(rest)}"
    return f"{unit}.{_module_key(rest, design.stages[stage].mask_depth, design.r)}"


def _module_key(rest: str, depth: int, r: int) -> str:
    part, index, rest = rest.split(".", 2)
    if part == "mask":
        return _mask_key(index, rest, depth, r)
    block = {
        "pre": f"init_blocks.blocks.block{int(index) + 1}",
        "trunk": f"hg.skip_seq.skip1.blocks.block{int(index) + 1}",
        "post": "final_block",
    }[part]
    return f"{block}.{_unit_key(rest)}"


def _mask_key(part: str, rest: str, depth: int, r: int) -> str:
    index, _, rest = rest.partition(".")
    number = int(index)
    if part == "head":
        return f"middle_block.{HEAD_KEYS[index]}.{rest}"
    if part == "skip":  # skip1 is the trunk
        return f"hg.skip_seq.skip{number + 2}.skip1.{_unit_key(rest)}"
    if part == "bottom":  # the lowest units are split between the last step down and the first step up
        step = f"down_seq.down{depth}" if number < r else f"up_seq.up{depth}"
        return f"hg.{step}.res_blocks.blocks.block{number % r + 1}.{_unit_key(rest)}"
    block, _, rest = rest.partition(".")
    return f"hg.{part}_seq.{part}{number + 1}.res_blocks.blocks.block{int(block) + 1}.{_unit_key(rest)}"


def _unit_key(rest: str) -> str:
    name, _, leaf = rest.partition(".")
    if name == "shortcut":
        return f"identity_conv.{leaf}"
    kind, number = name[:-1], name[-1]
    return f"body.conv{number}.{kind}.{leaf}"
