"""Networks that are no RAN, given as --model: residual nets with what torchvision's have, through every command."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

IMAGES = Path(__file__).parents[2] / "examples" / "fashion_mnist"
SOURCE = '''
import torch
from torch import nn


def conv(inputs, outputs, kernel, stride=1, groups=1):
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """ResNet's: two 3x3, a 1x1 shortcut where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(*conv(inputs, outputs, 3, stride), nn.ReLU(), *conv(outputs, outputs, 3))
        self.downsample = nn.Sequential(*conv(inputs, outputs, 1, stride)) if stride > 1 else nn.Identity()

    def forward(self, x):
        return torch.relu(self.body(x) + self.downsample(x))


class InvertedResidual(nn.Module):
    """MobileNet's: expand, depthwise with ReLU6 or Hardswish, squeeze and excite, project without activation."""

    def __init__(self, channels, activation):
        super().__init__()
        wide = 2 * channels
        self.expand = nn.Sequential(*conv(channels, wide, 1), activation(), *conv(wide, wide, 5, 1, wide), activation())
        squeeze = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 8, 1), nn.ReLU(), nn.Conv2d(8, wide, 1), nn.Hardsigmoid()]
        self.gate = nn.Sequential(*squeeze)
        self.project = nn.Sequential(*conv(wide, channels, 1))

    def forward(self, x):
        h = self.expand(x)
        return x + self.project(h * self.gate(h))


def build():
    return nn.Sequential(
        *conv(3, 16, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        BasicBlock(16, 16, 1), BasicBlock(16, 24, 2),
        InvertedResidual(24, nn.ReLU6), InvertedResidual(24, nn.Hardswish),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24 * 2 * 2, 32, bias=False), nn.BatchNorm1d(32), nn.SiLU(),
        nn.Dropout(0.2), nn.Linear(32, 10),
    )
'''


def pixels(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    with np.load(IMAGES / f"{name}.npz") as content:
        images = np.pad(content["images"][:count], ((0, 0), (2, 2), (2, 2))) / 255
        labels = content["labels"][:count].astype(np.int64)
    return torch.from_numpy((images[:, None].repeat(3, 1) - 0.5) / 0.5).float(), torch.from_numpy(labels)


def trained(module: nn.Module) -> nn.Module:
    """Take a few steps, so that labels are not those of rounding; they come from the images the net is tested with."""
    images, labels = pixels("test", 128)
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    module.train()
    for _ in range(25):
        loss = nn.functional.cross_entropy(module(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.reset_running_stats()
            part.momentum = None  # statistics of the last weights, not an average over all steps
    with torch.no_grad():
        module(images)
    return module.eval()


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """The checkpoint, and the options that build its network."""
    folder = tmp_path_factory.mktemp("residual")
    (folder / "residual_cnn.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    torch.manual_seed(0)
    torch.save(trained(importlib.import_module("residual_cnn").build()).state_dict(), folder / "residual.pth")
    return folder / "residual.pth", ("--model", "residual_cnn:build")


def test_a_residual_cnn_goes_through_every_command_in_int8(call, residual, tmp_path):
    checkpoint, model = residual
    bundle, cache = tmp_path / "residual.ran", ("--cache-dir", tmp_path / "cache")
    options = ["--input-size", "32x32", "--resize", "none", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    data = ["--calibration-data", IMAGES / "calibration.npz", "--calibration-images", "64"]
    outcome = call("ran-export", checkpoint, *model, *options, *data, *cache, "-o", bundle)
    assert outcome.status == 0, outcome.err

    for backend in ("onnxruntime", "openvino"):
        found = call("ran-infer", bundle, IMAGES / "images", "--backend", backend, "--json", *cache)
        assert found.status == 0, found.err
        assert len(found.out.splitlines()) == len(list((IMAGES / "images").iterdir()))

    compared = ["--data", IMAGES / "test.npz", "--limit", "128", "--reference", checkpoint, *model]
    outcome = call("ran-validate", bundle, *compared, "--backend", "all", "--json", *cache)
    report = json.loads(outcome.out)
    assert [engine["estimate"] for engine in report["engines"]] == [False, False, True]
    for engine in report["engines"]:
        assert engine["agreement"] >= 95
