"""--model: a user's own network takes its checkpoint as PyTorch would, and says in one line where it does not."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models import load_checkpoint

NETWORKS = '''
import torch
from torch import nn


class Classifier(nn.Module):
    """Most of its keys are under one name, as with a backbone and a head."""

    def __init__(self, classes=4):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.head = nn.Linear(8, classes)
        self.register_buffer("order", torch.randperm(classes))
        self.register_buffer("is_known", torch.ones(classes, dtype=torch.bool))

    def forward(self, x):
        assert x.shape[-1] == 12, "takes 12 pixels"
        return self.head(self.backbone(x).mean((2, 3)))[:, self.order] * self.is_known


class Silent(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))[:, :0]
'''


@pytest.fixture
def networks(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("own_networks")
    del sys.modules["own_networks"]


def load(path, name="Classifier", side=12):
    return load_checkpoint(path, model=f"own_networks:{name}", input_size=(side, side))


def saved(path, module: nn.Module, prefix=""):
    torch.save({prefix + key: value for key, value in module.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.classifier."])
def test_keys_are_taken_as_saved_and_without_wrappers(prefix, networks, tmp_path):
    torch.manual_seed(0)
    network = networks.Classifier().eval()
    loaded = load(saved(tmp_path / "net.pth", network, prefix))
    images = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(loaded.module(images), network(images))
    assert torch.equal(loaded.module.order, network.order)
    assert loaded.module.is_known.dtype == torch.bool


def test_another_number_of_classes_is_refused(networks, tmp_path):
    path = saved(tmp_path / "net.pth", networks.Classifier(7))
    with pytest.raises(
        CheckpointError,
        match=r"does not fit --model .* 4 of another shape \(.*head.weight has shape \(7, 8\), expected \(4, 8\)",
    ):
        load(path)


def test_whatever_the_network_raises_is_one_line(networks, tmp_path):
    path = saved(tmp_path / "net.pth", networks.Classifier())
    with pytest.raises(ConfigError, match=r"does not take an input of \(1, 3, 20, 20\): takes 12 pixels"):
        load(path, side=20)


def test_floats_where_the_network_has_integers_are_refused(networks, tmp_path):
    state = networks.Classifier().state_dict()
    torch.save({**state, "order": state["order"].float()}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="order holds float32; expected int64"):
        load(tmp_path / "net.pth")


def test_a_network_without_outputs_is_refused(networks, tmp_path):
    torch.save({"unused.num_batches_tracked": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(ConfigError, match=r"returns a tensor of shape \(1, 0\); expected logits"):
        load(tmp_path / "net.pth", "Silent")
