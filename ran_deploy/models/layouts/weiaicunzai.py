"""The layout of weiaicunzai's pytorch-cifar100 attention nets, for 32 pixel inputs.

Source: https://github.com/weiaicunzai/pytorch-cifar100, models/attention.py (keys).
"""

from __future__ import annotations

import re

from ran_deploy.models.layouts import Reading, Shapes
from ran_deploy.models.layouts.keys import count, stage_and_position
from ran_deploy.models.weiaicunzai import CifarDesign, CifarNetwork

NAME = "weiaicunzai"
INPUT_SIZE = (32, 32)
MODULE = r"stage\d+\.\d+\."
# Of masks that pretend three halvings, two and one: the skip unit that is called.
SKIPS = {3: "shortcut_long", 2: "shortcut"}


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("pre_conv.0.weight"), shapes.get("linear.weight")
    if stem is None or classifier is None or not count(shapes, MODULE + r"(soft_resdown1)\."):
        return None
    stages = range(1, count(shapes, r"stage(\d+)\.") + 1)
    modules = [count(shapes, rf"stage{stage}\.(\d+)\.pre\.") for stage in stages]
    last = max(stage for stage, number in zip(stages, modules, strict=True) if number)
    design = CifarDesign(
        widths=(stem[0], *(shapes.get(f"stage{stage}.0.shortcut.weight", (4,))[0] for stage in stages)),
        modules=tuple(modules[:last]),
        depths=tuple(count(shapes, rf"stage{stage}\.\d+\.soft_resdown(\d)\.") - 1 for stage in stages[:last]),
        closing_units=count(shapes, rf"stage{last + 1}\.(\d+)\.") - 1,
        p=count(shapes, MODULE + r"pre\.(\d+)\.") or 1,
        t=count(shapes, MODULE + r"trunk\.(\d+)\.") or 2,
        r=count(shapes, MODULE + r"soft_resdown1\.(\d+)\.") or 1,
    )
    return _reading(design, classifier[0])


def typical() -> Reading:
    return _reading(CifarDesign(widths=(64, 256, 512, 1024, 2048), modules=(1, 1, 1), depths=(3, 2, 1)), 100)


def _reading(design: CifarDesign, num_classes: int) -> Reading:
    units = sum(1 + number * (2 * design.p + design.t) for number in design.modules) + 1 + design.closing_units
    return Reading(
        architecture=f"attention-{3 * units + 2}-cifar",
        num_classes=num_classes,
        input_size=INPUT_SIZE,
        build=lambda: CifarNetwork(design, num_classes),
        key_of=lambda key: _key(key, design),
        is_dead=lambda key: _is_dead(key, design),
    )


def _is_dead(key: str, design: CifarDesign) -> bool:
    match = re.match(r"stage(\d+)\.\d+\.(shortcut|shortcut_short)\.(?:residual_function|shortcut)\.", key)
    return match is not None and match[2] != SKIPS.get(_depth(design, int(match[1])))


def _depth(design: CifarDesign, stage: int) -> int:
    return design.depths[stage - 1] if stage <= len(design.depths) else 0


def _key(key: str, design: CifarDesign) -> str:
    head, _, rest = key.partition(".")
    if head != "stages":
        return {"stem": "pre_conv", "classifier": "linear"}[head] + "." + rest
    index, position, rest = stage_and_position(rest)
    stage = index + 1
    element = f"stage{stage}.{position}"
    if stage > len(design.modules) or position == 0:
        return f"{element}.{rest}"
    part, _, rest = rest.partition(".")
    if part != "mask":
        return f"{element}.{'last' if part == 'post' else part}.{rest}"
    return f"{element}.{_mask_key(rest, _depth(design, stage))}"


def _mask_key(rest: str, depth: int) -> str:
    part, index, rest = rest.split(".", 2)
    number = int(index)
    if part == "head":
        return f"sigmoid.{index}.{rest}"
    if part == "skip":
        return f"{SKIPS[depth]}.{rest}"
    if part == "bottom":
        return f"soft_resdown{depth + 1}.{rest}" if number == 0 else f"soft_resup1.{rest}"
    return f"soft_resdown{number + 1}.{rest}" if part == "down" else f"soft_resup{number + 2}.{rest}"
