"""The layout of tengshaofeng's ResidualAttentionNetwork-pytorch, for 224 and 32 pixel inputs.

Source: https://github.com/tengshaofeng/ResidualAttentionNetwork-pytorch (keys and forward semantics).
"""

from __future__ import annotations

import re

from ran_deploy.models.design import Design, MaskJoin, Pooling, Stage, Stem
from ran_deploy.models.layouts import Reading, Shapes
from ran_deploy.models.layouts.keys import count, matches
from ran_deploy.models.network import build_network

NAME = "tengshaofeng"
STEMS = {7: Stem.CONV7_POOL3, 5: Stem.CONV5_POOL2, 3: Stem.CONV3}
UNIT_KEYS = {"shortcut": "conv4"}


def read(shapes: Shapes) -> Reading | None:
    stem, classifier = shapes.get("conv1.0.weight"), shapes.get("fc.weight")
    if stem is None or classifier is None or stem[-1] not in STEMS or not count(shapes, r"(attention_module1)\."):
        return None
    is_small = STEMS[stem[-1]] is not Stem.CONV7_POOL3
    entries = sorted(int(match[1]) for match in matches(shapes, r"residual_block(\d+)\.conv1\.weight"))
    stages = [_stage(shapes, index, is_small) for index in entries if _modules(shapes, index)]
    closing = [index for index in entries if not _modules(shapes, index)]
    stages.append(
        Stage(
            width=_width(shapes, closing[0]) if closing else 0,
            stride=1 if is_small else 2,
            modules=0,
            closing_units=len(closing) - 1,
        )
    )
    design = Design(
        stem=STEMS[stem[-1]],
        stem_width=stem[0],
        stages=tuple(stages),
        pooling=Pooling.PADDED,
        join=MaskJoin.DENSE,
    )
    return _reading(design, classifier[0])


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
    return _reading(design, 10)


def _modules(shapes: Shapes, index: int) -> int:
    return count(shapes, rf"attention_module{index}((?:_\d+)?)\.")


def _width(shapes: Shapes, index: int) -> int:
    return shapes.get(f"residual_block{index}.conv3.weight", (0,))[0]


def _stage(shapes: Shapes, index: int, is_small: bool) -> Stage:
    module = rf"attention_module{index}\."
    skips = count(shapes, module + r"(skip\d)_connection_residual_block\.")
    # A module for 32 pixels without a skip unit pools once in stage 2 and not at all after it.
    depth = skips + 1 if skips or not is_small or index < 3 else 0
    stride = 1 if index == 1 else 2
    return Stage(width=_width(shapes, index), stride=stride, modules=_modules(shapes, index), mask_depth=depth)


def _reading(design: Design, num_classes: int) -> Reading:
    is_small = design.stem is not Stem.CONV7_POOL3
    side = 32 if is_small else 224
    depths = [stage.mask_depth for stage in design.stages]
    return Reading(
        architecture=f"attention-{design.trunk_depth}" + ("-cifar" if is_small else ""),
        num_classes=num_classes,
        input_size=(side, side),
        build=lambda: build_network(design, num_classes),
        key_of=lambda key: _key(key, design, depths, is_small),
        is_dead=lambda key: ".conv4." in key,
        design=design,
    )


def _key(key: str, design: Design, depths: list[int], is_small: bool) -> str:
    head, _, rest = key.partition(".")
    if head != "stages":
        return {"stem": "conv1", "norm": "mpool2.0", "classifier": "fc"}[head] + "." + rest
    stage, position, rest = rest.split(".", 2)
    index, place = int(stage) + 1, int(position)
    if place > design.stages[index - 1].modules or place == 0:
        return f"residual_block{index + place}.{_unit_key(rest)}"
    module = f"attention_module{index}" + (f"_{place}" if place > 1 else "")
    names = _module_names_32(depths[index - 1]) if is_small else _module_names_224(depths[index - 1])
    for ours, theirs in names.items():
        if match := re.match(ours, rest):
            return f"{module}.{match.expand(theirs)}.{_unit_key(rest[match.end() + 1 :])}"
    raise AssertionError(f"no name for {key}")


def _unit_key(rest: str) -> str:
    name, _, leaf = rest.partition(".")
    return f"{UNIT_KEYS.get(name, name)}.{leaf}"


COMMON_NAMES = {
    r"pre\.0": "first_residual_blocks",
    r"trunk\.(\d)": r"trunk_branches.\1",
    r"post\.0": "last_blocks",
}


def _module_names_224(depth: int) -> dict[str, str]:
    """Return the names at depth k: encoder softmax 1..k-1, the two lowest units k, decoder k+1..2k-1, head 2k."""
    names = {r"mask\.head(?=\.)": f"softmax{2 * depth}_blocks", r"mask\.bottom\.(\d)": rf"softmax{depth}_blocks.\1"}
    for level in range(depth - 1):
        names[rf"mask\.down\.{level}\.0"] = f"softmax{level + 1}_blocks"
        names[rf"mask\.skip\.{level}"] = f"skip{level + 1}_connection_residual_block"
        names[rf"mask\.up\.{level}\.0"] = f"softmax{2 * depth - 1 - level}_blocks"
    return COMMON_NAMES | names


def _module_names_32(depth: int) -> dict[str, str]:
    """Return the names of the 32 pixel modules, numbered by level."""
    names = {r"mask\.head(?=\.)": "conv1_1_blocks", r"mask\.bottom\.(\d)": r"middle_2r_blocks.\1"}
    for level in range(depth - 1):
        names[rf"mask\.down\.{level}\.0"] = f"down_residual_blocks{level + 1}"
        names[rf"mask\.skip\.{level}"] = f"skip{level + 1}_connection_residual_block"
        names[rf"mask\.up\.{level}\.0"] = f"up_residual_blocks{level + 1}"
    return COMMON_NAMES | names
