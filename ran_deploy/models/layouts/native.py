"""This project's own layout: the state dict of `ran_deploy.models.network`."""

from __future__ import annotations

from dataclasses import replace

from ran_deploy.manifest import Task
from ran_deploy.models.design import Design, Stage, Stem, Tail
from ran_deploy.models.layouts import Reading, Shapes, reading_of
from ran_deploy.models.layouts.keys import count
from ran_deploy.models.zoo import ARCHITECTURES, name_of, named

NAME = "ran-deploy"
STEMS = {7: Stem.CONV7_POOL3, 5: Stem.CONV5_STRIDE2, 3: Stem.CONV3}


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("stem.0.weight"), shapes.get("classifier.weight")
    if stem is None or classifier is None or stem[-1] not in STEMS:
        return None
    number = count(shapes, r"stages\.(\d+)\.")
    stages = tuple(_stage(shapes, index) for index in range(number))
    module = next((f"stages.{i}.1." for i, stage in enumerate(stages) if stage.modules), "")
    bottom = count(shapes, rf"{module}mask\.bottom\.(\d+)\.")
    # A mask that pools has 2 r units there.
    is_unpooled = bottom % 2 == 1 and not count(shapes, r"stages\.\d+\.\d+\.mask\.(down)\.")
    if is_unpooled:
        stages = tuple(replace(stage, mask_depth=0) for stage in stages)
    design = Design(
        stem=STEMS[stem[-1]],
        stem_width=stem[0],
        stages=stages,
        p=count(shapes, rf"{module}pre\.(\d+)\.") or 1,
        t=count(shapes, rf"{module}trunk\.(\d+)\.") or 2,
        r=1 if is_unpooled else bottom // 2 or 1,
        unpooled_units=bottom if is_unpooled else None,
    )
    return _reading(design, classifier[0])


def described(design: Design, shapes: Shapes) -> Reading:
    """Return the reading of a state dict that stores its design."""
    last = shapes.get("classifier.weight") or shapes.get("embedding.1.weight") or (1,)
    return _reading(design, last[0])


def typical() -> Reading:
    return _reading(ARCHITECTURES["attention-56"].design, 1000)


def _stage(shapes: Shapes, index: int) -> Stage:
    stage = rf"stages\.{index}\."
    modules = count(shapes, stage + r"(\d+)\.trunk\.")
    return Stage(
        width=shapes.get(f"stages.{index}.0.conv3.weight", (0,))[0],
        stride=1 if index == 0 else 2,
        modules=modules,
        mask_depth=1 + count(shapes, stage + r"1\.mask\.down\.(\d+)\.") if modules else 0,
        closing_units=count(shapes, stage + r"(\d+)\.") - modules - 1,
    )


def _reading(design: Design, num_classes: int) -> Reading:
    side = 224 if design.stem is Stem.CONV7_POOL3 else 32
    size = ARCHITECTURES[name].input_size if (name := named(design)) is not None else (side, side)
    if design.last_map is not None:
        size = (design.last_map[0] * design.reduction, design.last_map[1] * design.reduction)
    return reading_of(
        design,
        num_classes,
        architecture=name_of(design),
        key_of=lambda key: key,
        input_size=size,
        task=Task.EMBEDDING if design.tail is Tail.FLATTEN else Task.CLASSIFICATION,
    )
