"""Comparing the exported graph with PyTorch: rounding and damage of the network itself are told from a wrong export."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from ran_deploy.errors import CheckpointError, ConversionError
from ran_deploy.models import load_checkpoint
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.evaluation.reference import reference_graph, require_meaning, require_parity, torch_logits

SIZE = (20, 24)
RECIPE = Preprocessing(crop=SIZE)
NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 24, 64))
"""


@pytest.fixture
def linear(tmp_path, monkeypatch):
    """Return a function that gives the checkpoint of a linear network whose outputs cancel but for one part in
    `cancelled` on grey images, and such images.
    """
    (tmp_path / "linear_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)

    def make(cancelled: float):
        import linear_network

        torch.manual_seed(0)
        module = linear_network.build()
        grey = torch.full((1, 3, *SIZE), 128 / 255, dtype=torch.float64)
        with torch.no_grad():
            total = nn.functional.linear(grey.flatten(1), module[1].weight.double())[0]
            module[1].bias.copy_(-total * (1 - 1 / cancelled))
        torch.save(module.state_dict(), tmp_path / "linear.pth")
        checkpoint = load_checkpoint(tmp_path / "linear.pth", model="linear_network:build", input_size=SIZE)
        return checkpoint, np.full((5, *SIZE, 3), 128, np.uint8)

    return make


def compare(exported, checkpoint, images):
    """Compare the graph of one checkpoint with PyTorch's outputs of another."""
    graph = reference_graph(exported, RECIPE, lambda line: None)
    require_parity(graph, checkpoint, RECIPE, images, torch_logits(checkpoint, RECIPE, images))


def test_a_network_that_amplifies_rounding_is_exported_with_a_warning(linear, caplog):
    checkpoint, images = linear(1e4)
    exact = torch_logits(checkpoint, RECIPE, images, torch.float64)
    assert relative_l2(exact, torch_logits(checkpoint, RECIPE, images)) > 1e-4
    with caplog.at_level(logging.WARNING):
        compare(checkpoint, checkpoint, images)
    assert all("amplifies rounding" in line for line in caplog.messages)


def test_a_graph_that_computes_something_else_is_refused(linear):
    (checkpoint, images), (other, _) = linear(1.5), linear(1.501)
    compare(checkpoint, checkpoint, images)
    with pytest.raises(ConversionError, match=r"differs from PyTorch at batch 1 by .*e-04 .*limit 1e-04"):
        compare(other, checkpoint, images)


@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_the_networks_fault(damage):
    outputs = np.ones((6, 3), np.float32)
    outputs[2, 1] = outputs[4, 0] = damage
    with pytest.raises(CheckpointError, match="In PyTorch itself outputs are NaN or infinite for 2 of 6 inputs"):
        require_meaning(np.zeros((6, 4, 4, 3), np.uint8), outputs)


def test_outputs_that_never_change_are_warned_of_unless_the_inputs_do_not_either(caplog, rng):
    inputs = rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        require_meaning(inputs, rng.standard_normal((6, 3)))
        require_meaning(np.repeat(inputs[:1], 6, 0), np.ones((6, 3)))
        assert not caplog.messages
        require_meaning(inputs, np.ones((6, 3)))
    assert "the same for all 6 inputs" in caplog.text
