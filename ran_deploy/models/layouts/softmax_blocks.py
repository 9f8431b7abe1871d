"""The names of tengshaofeng's code, which liudaizong's and FaceX-Zoo's share: mask units are softmax<i>_blocks."""

from __future__ import annotations

import re

from ran_deploy.models.design import Stage
from ran_deploy.models.layouts import Shapes
from ran_deploy.models.layouts.keys import count, matches, stage_and_position

__all__ = ["head_key", "is_dead", "module_key", "read_stages", "stages_key", "trunk_units", "unit_key"]

UNIT_KEYS = {"shortcut": "conv4"}
MODULE_KEYS = {
    r"pre\.0": "first_residual_blocks",
    r"trunk\.(\d+)": r"trunk_branches.\1",
    r"post\.0": "last_blocks",
}


def read_stages(shapes: Shapes, *, is_small: bool) -> tuple[Stage, ...]:
    """Return the stages of residual_block<i> and attention_module<i>[_<j>]; the first keeps its size.

    `is_small` marks the nets for 32 pixels, whose last stage keeps its size too.
    """
    entries = sorted(int(match[1]) for match in matches(shapes, r"residual_block(\d+)\.conv1\.weight"))
    stages: list[Stage] = []
    for index in entries:
        modules = count(shapes, rf"attention_module{index}((?:_\d+)?)\.")
        width = shapes.get(f"residual_block{index}.conv3.weight", (0,))[0]
        if modules:
            stride = 1 if not stages else 2
            depth = mask_depth(shapes, rf"attention_module{index}\.", is_shallow=is_small and index > 2)
            stages.append(Stage(width=width, stride=stride, modules=modules, mask_depth=depth))
        elif stages and stages[-1].modules == 0 and stages[-1].width == width:
            last = stages.pop()
            stages.append(Stage(width=width, stride=last.stride, modules=0, closing_units=last.closing_units + 1))
        else:
            stages.append(Stage(width=width, stride=1 if is_small or not stages else 2, modules=0))
    return tuple(stages)


def mask_depth(shapes: Shapes, module: str, *, is_shallow: bool = False) -> int:
    """Return the max pools of a module's mask; `is_shallow` where one without skip units does not pool at all."""
    skips = count(shapes, module + r"(skip\d+)_connection_residual_block\.")
    return skips + 1 if skips or not is_shallow else 0


def trunk_units(shapes: Shapes) -> int:
    """Return t, two where nothing tells."""
    return count(shapes, r".*attention_(?:module|body)[^.]*\..*?trunk_branches\.(\d+)\.") or 2


def stages_key(rest: str, stages: tuple[Stage, ...], first: int, *, is_small: bool) -> str:
    """Return the name of our key `stages.<rest>`; `first` is the number of the first stage."""
    stage, position, rest = stage_and_position(rest)
    number = first + stage
    if position > stages[stage].modules or position == 0:
        return f"residual_block{number + position}.{unit_key(rest)}"
    module = f"attention_module{number}" + (f"_{position}" if position > 1 else "")
    return f"{module}.{module_key(rest, stages[stage].mask_depth, is_small=is_small)}"


def head_key(key: str) -> str:
    """Return the name of a key outside of the stages."""
    head, _, rest = key.partition(".")
    return {"stem": "conv1", "norm": "mpool2.0", "classifier": "fc"}[head] + "." + rest


def module_key(rest: str, depth: int, *, is_small: bool = False) -> str:
    """Return the name of a key within an attention module."""
    names = _names_by_level(depth) if is_small else _names_by_number(depth)
    for ours, theirs in names.items():
        if match := re.match(ours, rest):
            return f"{match.expand(theirs)}.{unit_key(rest[match.end() + 1 :])}"
    raise AssertionError(f"no name for {rest}")


def unit_key(rest: str) -> str:
    """Return the name of a key within a unit."""
    name, _, leaf = rest.partition(".")
    return f"{UNIT_KEYS.get(name, name)}.{leaf}"


def is_dead(key: str) -> bool:
    """Tell the shortcut convolution that every unit stores and only those that change width or stride use."""
    return ".conv4." in key


def _names_by_number(depth: int) -> dict[str, str]:
    """Return the names at depth k: encoder softmax 1..k-1, the two lowest units k, decoder k+1..2k-1, head 2k."""
    names = {r"mask\.head(?=\.)": f"softmax{2 * depth}_blocks", r"mask\.bottom\.(\d)": rf"softmax{depth}_blocks.\1"}
    for level in range(depth - 1):
        names[rf"mask\.down\.{level}\.0"] = f"softmax{level + 1}_blocks"
        names[rf"mask\.skip\.{level}"] = f"skip{level + 1}_connection_residual_block"
        names[rf"mask\.up\.{level}\.0"] = f"softmax{2 * depth - 1 - level}_blocks"
    return MODULE_KEYS | names


def _names_by_level(depth: int) -> dict[str, str]:
    """Return the names of the 32 pixel modules, numbered by level."""
    names = {r"mask\.head(?=\.)": "conv1_1_blocks", r"mask\.bottom\.(\d)": r"middle_2r_blocks.\1"}
    for level in range(depth - 1):
        names[rf"mask\.down\.{level}\.0"] = f"down_residual_blocks{level + 1}"
        names[rf"mask\.skip\.{level}"] = f"skip{level + 1}_connection_residual_block"
        names[rf"mask\.up\.{level}\.0"] = f"up_residual_blocks{level + 1}"
    return MODULE_KEYS | names
