"""The arithmetic against PyTorch, which builds the network and counts what it does."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ran_deploy.errors import ConfigError
from ran_deploy.models.arithmetic import cost_of
from ran_deploy.models.design import Stem
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES, cifar

ORACLE = Path(__file__).parents[1] / "oracle"
FIRST_OF_ITS_KIND = [
    "attention-56",
    "attentionnext-56",
    "attentioninception-56",
    "cifar-attention-56-local",
    "compact-attention",
]


def counted_by_torch(design, outputs, size=None):
    """Return parameters, statistics and, given a size, multiply-adds."""
    with torch.device("meta"), torch.no_grad():
        module = build_network(design, outputs).eval()
        with FlopCounterMode(display=False) as counter:
            if size is not None:
                module(torch.zeros(1, 3, *size))
    statistics = sum(value.numel() for key, value in module.named_buffers() if "running" in key)
    return sum(p.numel() for p in module.parameters()), statistics, counter.get_total_flops() / 2  # 2 for each


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_of_the_zoo_are_what_torch_counts(name):
    architecture = ARCHITECTURES[name]
    cost = cost_of(architecture.design, 7, architecture.input_size)
    assert (cost.parameters, cost.statistics) == counted_by_torch(architecture.design, 7)[:2]


@pytest.mark.parametrize("name", FIRST_OF_ITS_KIND)
def test_multiply_adds_are_what_torch_counts_where_height_and_width_differ(name):
    design = ARCHITECTURES[name].design
    assert cost_of(design, 7, (45, 70)).multiply_adds == counted_by_torch(design, 7, (45, 70))[2]


def test_p_t_and_r_are_counted():
    design = cifar(1, p=2, t=4, r=3).design
    assert cost_of(design, 7, (32, 43)).multiply_adds == counted_by_torch(design, 7, (32, 43))[2]


@pytest.mark.parametrize(
    ("layout", "size"), [("pytorchcv", (33, 64)), ("facexzoo", (112, 112)), ("liudaizong", (64, 50))]
)
def test_variants_of_other_code_are_counted(layout, size):
    design = importlib.import_module(LAYOUTS[layout]).typical().design
    cost = cost_of(design, 9, size)
    assert (cost.parameters, cost.statistics, cost.multiply_adds) == counted_by_torch(design, 9, size)


@pytest.mark.parametrize("stem", [stem for stem in Stem if stem is not Stem.CONV7_POOL3])
def test_every_stem_is_counted(stem):
    design = replace(ARCHITECTURES["compact-attention"].design, stem=stem)
    assert cost_of(design, 3, (38, 51)).multiply_adds == counted_by_torch(design, 3, (38, 51))[2]


@pytest.mark.parametrize("path", sorted(ORACLE.glob("authors__*.json")), ids=lambda path: path.stem)
def test_the_authors_networks_have_the_published_counts(path):
    facts = json.loads(path.read_text())
    cost = cost_of(ARCHITECTURES[facts["arch"].lower()].design, 1000, (224, 224))
    assert cost.parameters == facts["num_parameters"]
    assert cost.multiply_adds == facts.get("macs", cost.multiply_adds)  # the file of AttentionNeXt-56 has none


def test_a_size_the_network_cannot_take_has_no_cost():
    with pytest.raises(ConfigError, match="too small"):
        cost_of(ARCHITECTURES["attention-56"].design, 10, (224, 30))
