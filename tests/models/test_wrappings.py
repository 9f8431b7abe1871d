"""Every layout, as training scripts save it: prefixes, containers and file formats."""

from __future__ import annotations

import argparse
import importlib
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ran_deploy.errors import CheckpointError
from ran_deploy.models import load_checkpoint
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.network import build_network
from ran_deploy.models.weiaicunzai import CifarDesign, CifarNetwork

MORE = {"tengshaofeng": {"first": 1}, "liudaizong": {"has_uncalled": False}}  # what else these layouts tell by
OTHER_WEIGHTS = {"loss.weight": torch.ones(3, 2), "loss.scale": torch.ones(1)}

PREFIXES = {
    "none": (),
    "parallel": ("module",),
    "compiled": ("_orig_mod",),
    "lightning": ("model",),
    "compiled parallel": ("module", "_orig_mod"),
    "face model": ("module", "backbone"),
    "any attribute": ("attention_encoder",),
    "any attribute of an attribute": ("learner", "student_net"),
    "what a layout calls its own": ("features",),
}
CONTAINERS = {
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "best": np.float64(93.1), "args": argparse.Namespace(lr=0.1)},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
    "lightning": lambda state: {"state_dict": state, "pytorch-lightning_version": "2.5.0", "loops": {}},
    "averaged": lambda state: {"model_ema": {"module": state}},
    "counted": lambda state: {"ema": {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in state.items()}}},
    "a name of its own": lambda state: {"best_generator": state, "accuracy": 0.93},
}


def narrow_network(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a narrow network of the layout, and its state dict under the layout's names."""
    torch.manual_seed(0)
    layout = importlib.import_module(LAYOUTS[name])
    if name == "weiaicunzai":
        design = CifarDesign(widths=(8, 16, 32), modules=(1,), depths=(2,))
        module, reading = CifarNetwork(design, 5), layout._reading(design, 5)
    else:
        typical = layout.typical().design
        stages = tuple(replace(stage, width=stage.width // 16) for stage in typical.stages)
        design = replace(typical, stem_width=4, stages=stages)
        module, reading = build_network(design, 5), layout._reading(design, 5, **MORE.get(name, {}))
    state = {reading.key_of(key): value for key, value in module.state_dict().items() if key != "_extra_state"}
    return module, state


@pytest.fixture(scope="module", params=LAYOUTS)
def network(request):
    return request.param, *narrow_network(request.param)


def assert_same(path, network):
    name, module, _ = network
    loaded = load_checkpoint(path)
    assert loaded.layout == name
    found = loaded.module.state_dict()
    for key, value in module.state_dict().items():
        if key != "_extra_state":
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("prefixes", PREFIXES.values(), ids=PREFIXES)
def test_prefixes(prefixes, network, tmp_path):
    prefix = "".join(f"{part}." for part in prefixes)
    state = {prefix + key: value for key, value in network[2].items()}
    path = tmp_path / "net.pth"
    torch.save(state | OTHER_WEIGHTS if prefixes else state, path)
    assert_same(path, network)


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS)
def test_containers(wrap, network, tmp_path):
    torch.save(wrap(network[2]), tmp_path / "net.tar")
    assert_same(tmp_path / "net.tar", network)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".tar", ".safetensors"])
@pytest.mark.parametrize("is_old", [False, True], ids=["zip", "before PyTorch 1.6"])
def test_file_formats(suffix, is_old, network, tmp_path):
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(network[2], path)
    else:
        torch.save(network[2], path, _use_new_zipfile_serialization=not is_old)
    assert_same(path, network)


def test_under_a_prefix_of_its_own_the_closest_layout_is_named_too(network, tmp_path):
    name, _, state = network
    lost = [key for key, value in state.items() if value.shape[2:] == (3, 3)][-1]
    torch.save({f"encoder.{key}": value for key, value in state.items() if key != lost}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "net.pth")
    assert f"Closest is {name!r}" in str(caught.value)
    assert f"1 missing ({lost})" in str(caught.value)


def test_an_unknown_network_is_told_under_the_names_it_was_saved_with(tmp_path):
    state = {f"encoder.layers.{i}.attention.weight": torch.ones(4, 4) for i in range(12)}
    torch.save(state, tmp_path / "bert.pth")
    with pytest.raises(CheckpointError, match=r"resembles no known layout .* encoder\.layers\.0\.attention\.weight"):
        load_checkpoint(tmp_path / "bert.pth")
