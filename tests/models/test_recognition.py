"""--architecture: a name decides where keys cannot, and never against what the checkpoint says by itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models import load_checkpoint, save_checkpoint
from ran_deploy.models.design import Stem
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES

ORACLE = Path(__file__).parents[1] / "oracle"
VARIANTS = ["cifar-attention-56-naive", "cifar-attention-56-channel", "cifar-attention-56-spatial"]


def saved(path, name, *, design=True, lost=()):
    """Save a network of the zoo as its own code would, or as code that drops the design; returns the network too."""
    torch.manual_seed(3)
    module = build_network(ARCHITECTURES[name].design, 5).eval()
    state = {key: value for key, value in module.state_dict().items() if key not in lost}
    if not design:
        del state["_extra_state"]
    torch.save(state, path)
    return path, module


def assert_same(loaded, module):
    images = torch.rand(2, 3, 32, 36, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.module(images), module(images))


@pytest.mark.parametrize("name", [*VARIANTS, "cifar-attention-56-local"])
def test_a_name_tells_what_keys_cannot(name, tmp_path):
    path, module = saved(tmp_path / "net.pth", name, design=False)
    loaded = load_checkpoint(path, architecture=name)
    assert (loaded.layout, loaded.architecture, loaded.num_classes) == ("ran-deploy", name, 5)
    assert loaded.module.design == ARCHITECTURES[name].design
    assert_same(loaded, module)


@pytest.mark.parametrize("name", VARIANTS)
def test_without_a_name_such_keys_are_taken_for_the_plain_network(name, tmp_path):
    path, _ = saved(tmp_path / "net.pth", name, design=False)
    assert load_checkpoint(path).architecture == "cifar-attention-56"


def test_masks_of_three_units_tell_themselves(tmp_path):
    path, module = saved(tmp_path / "net.pth", "cifar-attention-56-local", design=False)
    loaded = load_checkpoint(path)
    assert loaded.architecture == "cifar-attention-56-local"
    assert_same(loaded, module)


@pytest.mark.parametrize("name", [*VARIANTS, "cifar-attention-56-local", "compact-attention"])
def test_a_stored_design_needs_no_name_and_takes_the_right_one(name, tmp_path):
    path, module = saved(tmp_path / "net.pth", name)
    for architecture in (None, name):
        loaded = load_checkpoint(path, architecture=architecture)
        assert loaded.architecture == name
        assert_same(loaded, module)


def refused(path, architecture, *words):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, architecture=architecture)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), architecture, *words):
        assert word in message
    return message


def test_a_name_never_beats_a_stored_design(tmp_path):
    path, _ = saved(tmp_path / "net.pth", "cifar-attention-56")
    refused(path, VARIANTS[0], "stores the design of cifar-attention-56", "learning residual instead of naive")


def test_the_name_of_another_network_is_refused_naming_what_it_is(tmp_path):
    path, _ = saved(tmp_path / "net.pth", "compact-attention", design=False)
    refused(path, "cifar-attention-56", "reads as compact-attention", "stem conv5-stride2 instead of conv3")


def test_keys_that_fit_nothing_are_compared_with_the_named_network(tmp_path):
    path, _ = saved(tmp_path / "net.pth", "compact-attention", design=False, lost=["stages.0.0.bn1.weight"])
    message = refused(path, "compact-attention", "does not fit --architecture", "1 missing (stages.0.0.bn1.weight)")
    assert "unexpected" not in message


def other_code(path, name):
    """Save a state dict with the keys and shapes of a published network, zeros for weights."""
    keys = json.loads((ORACLE / f"{name}.json").read_text())["keys"]
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in keys}, path)
    return path


def test_the_authors_network_has_the_zoos_name(tmp_path):
    path = other_code(tmp_path / "net.pth", "authors__Attention-56")
    loaded = load_checkpoint(path, architecture="attention-56")
    assert (loaded.layout, loaded.architecture) == ("authors", "attention-56")
    refused(path, "attention-92", "reads as attention-56 (authors layout)", "other stages")


def test_other_codes_variant_of_a_network_is_not_the_zoos(tmp_path):
    path = other_code(tmp_path / "net.pth", "tengshaofeng__ResidualAttentionModel_56")
    refused(path, "attention-56", "pooling padded instead of ceil, join dense instead of skip")


def test_a_network_of_other_parts_is_refused(tmp_path):
    path = other_code(tmp_path / "net.pth", "weiaicunzai__attention56")
    refused(path, "cifar-attention-56", "weiaicunzai layout", "made of other parts")


def test_an_unknown_name_is_refused_before_the_file_is_read(tmp_path):
    with pytest.raises(ConfigError, match="no architecture 'attention-57'; did you mean"):
        load_checkpoint(tmp_path / "missing.pth", architecture="attention-57")


def test_a_name_and_a_factory_are_one_too_many(tmp_path):
    with pytest.raises(ConfigError, match="--architecture and --model"):
        load_checkpoint(tmp_path / "missing.pth", architecture="attention-56", model="nets:build")


def test_a_design_of_ones_own_is_saved_and_found_again(tmp_path):
    design = replace(ARCHITECTURES["cifar-attention-56-naive"].design, stem=Stem.CONV5_POOL2, p=2)
    torch.manual_seed(4)
    module = build_network(design, 6).eval()
    save_checkpoint(tmp_path / "mine.safetensors", module, architecture="mine")
    loaded = load_checkpoint(tmp_path / "mine.safetensors")
    assert (loaded.architecture, loaded.module.design) == ("mine", design)
    assert_same(loaded, module)
