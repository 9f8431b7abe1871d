"""Layouts read structure from keys and shapes: nets nobody published, and state dicts with holes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ran_deploy.errors import CheckpointError
from ran_deploy.models import load_checkpoint
from ran_deploy.models.design import Stage
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.network import build_network
from ran_deploy.models.weiaicunzai import CifarDesign, CifarNetwork

ORACLE = Path(__file__).parents[1] / "oracle"
FILES = sorted(path.stem for path in ORACLE.glob("*.json"))


def layout(name):
    return importlib.import_module(LAYOUTS[name])


def published_shapes(name):
    facts = json.loads((ORACLE / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in facts["keys"]}


def narrow(stages, modules, closing=2):
    """Return the stages at an eighth of the width, with other module counts."""
    return tuple(
        replace(stage, width=stage.width // 8, modules=count, closing_units=0 if count else closing)
        for stage, count in zip(stages, [*modules, 0], strict=True)
    )


def saved_as(path, reading, module):
    """Save the module's weights under the layout's names; returns a checkpoint as that code would have saved it."""
    state = {reading.key_of(key): value for key, value in module.state_dict().items() if key != "_extra_state"}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return path


VARIANTS = [
    ("authors", {"modules": (2, 1, 1)}),
    ("tengshaofeng", {"modules": (1, 1, 4)}),
    ("tengshaofeng", {"modules": (2, 3, 1), "t": 3}),
    ("liudaizong", {"modules": (2, 1, 1)}),
    ("pytorchcv", {"modules": (2, 3, 4)}),
    ("pytorchcv", {"modules": (1, 1, 2), "p": 2, "t": 4, "r": 3}),
    ("facexzoo", {"modules": (1, 2, 3)}),
]
MORE = {"tengshaofeng": {"first": 1}, "liudaizong": {"has_uncalled": False}}  # what else these layouts tell by


@pytest.mark.parametrize(("name", "numbers"), VARIANTS)
def test_a_net_that_nobody_published_is_read_from_its_keys(name, numbers, tmp_path):
    typical = layout(name).typical()
    numbers = dict(numbers)
    stages = narrow(typical.design.stages, numbers.pop("modules"))
    design = replace(typical.design, stem_width=8, stages=stages, **numbers)
    module = build_network(design, 7).eval()
    reading = layout(name)._reading(design, 7, **MORE.get(name, {}))
    loaded = load_checkpoint(saved_as(tmp_path / "net.pth", reading, module))
    assert (loaded.layout, loaded.num_classes) == (name, 7)
    assert loaded.module.design == design
    images = torch.rand(2, 3, *loaded.input_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(images), module(images))


def test_weiaicunzais_nets_of_other_depth_and_width_are_read_from_their_keys(tmp_path):
    design = CifarDesign(widths=(8, 16, 32, 64), modules=(1, 2), depths=(3, 2), closing_units=1, r=2)
    module = CifarNetwork(design, 5).eval()
    reading = layout("weiaicunzai")._reading(design, 5)
    loaded = load_checkpoint(saved_as(tmp_path / "net.pth", reading, module))
    images = torch.rand(2, 3, 24, 40)
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(images), module(images))


def test_tengshaofengs_net_for_448_pixels_has_a_stage_0(tmp_path):
    typical = layout("tengshaofeng").typical()
    first = Stage(width=16, stride=1, modules=1, mask_depth=4)
    rest = narrow(typical.design.stages, (1, 2, 3))
    stages = (first, replace(rest[0], stride=2), *rest[1:])
    design = replace(typical.design, stem_width=8, stages=stages)
    reading = layout("tengshaofeng")._reading(design, 10, 0)
    module = build_network(design, 10).eval()
    assert reading.key_of("stages.0.1.mask.head.2.weight") == "attention_module0.softmax8_blocks.2.weight"
    loaded = load_checkpoint(saved_as(tmp_path / "net.pth", reading, module))
    assert loaded.input_size == (448, 448)
    assert loaded.module.design == design


def test_modules_that_the_first_version_stores_but_never_calls_are_dead(tmp_path):
    shapes = published_shapes("liudaizong__ResidualAttentionModel")
    for number, copies in ((2, "2"), (3, "23")):
        for copy in copies:
            own = f"attention_module{number}."
            extra = {
                key.replace(own, f"attention_module{number}_{copy}."): v for key, v in shapes.items() if own in key
            }
            shapes |= extra
    reading = layout("liudaizong").read(shapes)
    assert [stage.modules for stage in reading.design.stages] == [1, 1, 1, 0]
    assert reading.is_dead("attention_module3_3.softmax6_blocks.2.weight")


@pytest.mark.parametrize("name", FILES)
def test_a_state_dict_with_holes_is_refused_and_says_what_is_missing(name, tmp_path):
    shapes = published_shapes(name)
    used = [key for key in sorted(shapes) if "num_batches" not in key and "conv4" not in key and "shortcut" not in key]
    rng = random.Random(0)
    for _ in range(3):
        lost = rng.sample(used, 3)
        state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items() if key not in lost}
        torch.save(state, tmp_path / "holes.pth")  # one stored value a tensor
        with pytest.raises(CheckpointError, match="missing"):
            load_checkpoint(tmp_path / "holes.pth")


@pytest.mark.parametrize("name", FILES)
def test_a_state_dict_with_odd_shapes_is_refused(name, tmp_path):
    shapes = published_shapes(name)
    rng = random.Random(1)
    for _ in range(3):
        odd = rng.choice([key for key, shape in shapes.items() if shape and "conv4" not in key])
        state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
        state[odd] = torch.zeros(()).expand(5, 3)
        torch.save(state, tmp_path / "odd.pth")
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize("name", FILES)
def test_any_part_of_a_state_dict_is_refused_in_one_line(name, tmp_path):
    """Whatever is missing, and whatever has lost a dimension: layouts read structure from what may not be there."""
    shapes = published_shapes(name)
    rng = random.Random(2)
    for share in (0.9, 0.5, 0.1, 0.02):
        kept = {key: shape for key, shape in shapes.items() if rng.random() < share}
        odd = {key: shape[:-1] if rng.random() < 0.2 else shape for key, shape in kept.items()}
        torch.save({key: torch.zeros(()).expand(shape) for key, shape in odd.items()}, tmp_path / "part.pth")
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path / "part.pth")
        assert "\n" not in str(caught.value)
