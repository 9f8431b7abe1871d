"""The networks against what others published: parameters, multiply-adds and logits (tests/oracle/README.md)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch.utils.flop_counter import FlopCounterMode

from ran_deploy.models import load_checkpoint
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES

ORACLE = Path(__file__).parents[1] / "oracle"
FILES = sorted(path.stem for path in ORACLE.glob("*.json"))
LOGIT_TOLERANCE = 2e-5  # of the largest logit; float32 against float64 is at most 3e-6 there


def fill_rule():
    spec = importlib.util.spec_from_file_location("fill_rule", ORACLE / "fill_rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=FILES)
def published(request, tmp_path_factory):
    facts = json.loads((ORACLE / f"{request.param}.json").read_text())
    state = {key: torch.from_numpy(array) for key, array in fill_rule().fill_state(facts["keys"]).items()}
    path = tmp_path_factory.mktemp("oracle") / "checkpoint.pth"
    torch.save(state, path)
    return facts, load_checkpoint(path)


def test_layout_is_recognised(published):
    facts, loaded = published
    assert loaded.layout == facts["family"]
    assert loaded.num_classes == facts["runs"][0]["output_shape"][1]
    assert list(loaded.input_size) == facts["runs"][0]["input_shape"][2:]


def test_used_parameters_are_the_published_number(published):
    facts, loaded = published
    assert loaded.parameters == facts["num_parameters_used"]


def test_logits_are_the_published_ones_at_every_size(published):
    facts, loaded = published
    for run in facts["runs"]:
        images = torch.from_numpy(fill_rule().make_input(*run["input_shape"]))
        with torch.no_grad():
            logits = loaded.module(images).numpy()
        worst = np.abs(logits - np.array(run["logits"])).max()
        assert worst <= LOGIT_TOLERANCE * run["logits_absmax"], f"{run['input_shape']}: {worst}"


@pytest.mark.parametrize("name", ["Attention-56", "Attention-92"])
def test_multiply_adds_are_the_published_number(name):
    facts = json.loads((ORACLE / f"authors__{name}.json").read_text())
    architecture = ARCHITECTURES[name.lower()]
    with torch.device("meta"):
        module = build_network(architecture.design, architecture.num_classes).eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() == 2 * facts["macs"]


@pytest.mark.parametrize(
    ("name", "depth", "millions"),
    [
        ("cifar-attention-56", 56, None),
        ("cifar-attention-92", 92, 1.841),
        ("cifar-attention-236", 236, 5.085),
        ("cifar-attention-452", 452, 10.18),
    ],
)
def test_cifar_nets_have_the_published_depth_and_the_inferred_parameters(name, depth, millions):
    design = ARCHITECTURES[name].design
    assert design.trunk_depth == depth
    if millions is not None:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in build_network(design, 10).parameters())
        assert parameters / 1e6 == pytest.approx(millions, abs=5e-3)


def test_tengshaofengs_other_net_for_32_pixels_differs_in_its_stem_alone(tmp_path):
    """ResidualAttentionModel_92_32input: 5x5 convolution, then max pool 2x2; keys as in the updated net."""
    facts = json.loads((ORACLE / "tengshaofeng__ResidualAttentionModel_92_32input_update.json").read_text())
    shapes = [(key, [32, 3, 5, 5] if key == "conv1.0.weight" else shape) for key, shape in facts["keys"]]
    state = {key: torch.from_numpy(array) for key, array in fill_rule().fill_state(shapes).items()}
    torch.save(state, tmp_path / "32input.pth")
    torch.save({**state, "conv1.0.weight": state["conv1.0.weight"][..., 1:4, 1:4].clone()}, tmp_path / "update.pth")
    loaded, updated = (load_checkpoint(tmp_path / name).module for name in ("32input.pth", "update.pth"))
    images = torch.from_numpy(fill_rule().make_input(2, 3, 32, 32))
    with torch.no_grad():
        x = functional.conv2d(images, state["conv1.0.weight"], padding=2)
        statistics = [state[f"conv1.1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        x = functional.max_pool2d(functional.batch_norm(x, *statistics).relu(), 2)
        updated.stem = torch.nn.Identity()
        torch.testing.assert_close(loaded(images), updated(x), rtol=1e-5, atol=1e-5)
