from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ran_deploy.errors import ConfigError
from ran_deploy.models.attention import ChannelAttention, NaiveAttentionModule, SpatialAttention
from ran_deploy.models.design import Attention, Learning, design_from_json, design_to_json
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES, architecture_named, cifar, name_of

SMALL = ["compact-attention", "cifar-attention-56", "cifar-attention-56-local", "cifar-attention-56-spatial"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_network_builds_and_runs_at_its_smallest_side_and_refuses_one_below(name):
    design = ARCHITECTURES[name].design
    side = design.smallest_side
    with torch.device("cpu" if name in SMALL else "meta"), torch.no_grad():
        logits = build_network(design, 3).eval()(torch.zeros(2, 3, side, side))
    assert tuple(logits.shape) == (2, 3)
    if not logits.is_meta:
        assert torch.isfinite(logits).all()
    with pytest.raises(ConfigError, match=rf"{side - 1}x{side} is too small.*takes is {side}\.$") as caught:
        design.check_input_size(side - 1, side)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_design_survives_being_stored_and_has_its_name(name):
    design = ARCHITECTURES[name].design
    assert design_from_json(design_to_json(design)) == design
    assert name_of(design) == name


def test_a_design_stored_before_masks_could_have_any_number_of_units_is_read():
    design = cifar(1).design
    stored = design_to_json(design).replace(b',"unpooled_units":null', b"")
    assert b"unpooled" not in stored
    assert design_from_json(stored) == design


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cifar-attention-56-naive", NaiveAttentionModule),
        ("cifar-attention-56-channel", ChannelAttention),
        ("cifar-attention-56-spatial", SpatialAttention),
    ],
)
def test_the_variants_of_the_papers_tables_have_what_they_are_named_for(name, kind):
    with torch.device("meta"):
        modules = list(build_network(ARCHITECTURES[name].design, 10).modules())
    assert sum(isinstance(module, kind) for module in modules) == 3


def test_local_masks_are_three_units_at_full_resolution():
    with torch.device("meta"):
        module = build_network(ARCHITECTURES["cifar-attention-56-local"].design, 10)
    masks = [module.stages[i][1].mask for i in range(3)]
    assert [(mask.pool, len(mask.bottom), len(mask.down), len(mask.skip)) for mask in masks] == [(None, 3, 0, 0)] * 3


def test_masks_without_units_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        replace(cifar(1).design, unpooled_units=0)


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("atention-56", "attention-56"), ("Attention-92", "attention-92"), ("cifar-92", "cifar-attention-92")],
)
def test_an_unknown_name_is_refused_with_the_nearest(asked, meant):
    with pytest.raises(ConfigError, match=rf"no architecture '{asked}'; did you mean .*\b{meant}\b.*--list") as caught:
        architecture_named(asked)
    assert "\n" not in str(caught.value)


def test_a_name_like_no_other_is_refused_without_a_guess():
    with pytest.raises(ConfigError, match=r"no architecture 'zzz'; ran-export --list shows all\.$"):
        architecture_named("zzz")


def test_a_variant_outside_the_zoo_is_not_named_like_the_plain_network():
    design = replace(cifar(5).design, attention=Attention.SPATIAL, learning=Learning.NAIVE)
    assert name_of(design) == "attention-200-spatial-naive"
