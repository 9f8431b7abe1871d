"""Networks with random weights under which activations keep their size: rounding and speed do not need trained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ran_deploy.datasets import Split, open_dataset, select_indices
from ran_deploy.models.units import InceptionUnit, PreActivationUnit, ResNeXtUnit
from ran_deploy.models.weiaicunzai import BiasedUnit
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.workflows.exporting.quantization import CalibrationImages, calibration_images

BATCH = 8
EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"
MEAN, STD = (0.286,) * 3, (0.353,) * 3


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Give the network reproducible weights; the last ones of every unit's branch are small."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    for part in module.modules():
        if isinstance(part, (PreActivationUnit, InceptionUnit)):
            part.conv3.weight.mul_(0.25)
        elif isinstance(part, ResNeXtUnit):
            part.bn3.weight.mul_(0.25)
        elif isinstance(part, BiasedUnit):
            part.residual_function[-1].weight.mul_(0.25)
            nn.init.orthogonal_(part.shortcut.weight)


@torch.no_grad()
def settle(module: nn.Module, images: np.ndarray) -> None:
    """Set BatchNorm statistics to the plain average of those of the network's own activations."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.reset_running_stats()
            part.momentum = None
    module.train()
    for start in range(0, len(images), BATCH):
        module(normalised(images[start : start + BATCH]))
    module.eval()


def normalised(images: np.ndarray) -> torch.Tensor:  # uint8 (N, H, W, 3) -> (N, 3, H, W)
    scaled = (images / 255 - MEAN[0]) / STD[0]
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def recipe_of(size: tuple[int, int]) -> Preprocessing:
    """Return how images are prepared for these networks."""
    return Preprocessing(crop=size, resize=size, mean=MEAN, std=STD)


def examples(split: str, count: int, size: tuple[int, int]) -> tuple[CalibrationImages, np.ndarray]:
    """Return images of the example at `size`, and their labels."""
    dataset = open_dataset(EXAMPLE / f"{split}.npz", Split.TEST)
    images = calibration_images(dataset, count, recipe_of(size))
    return images, np.array([dataset.label(index) for index in select_indices(dataset, count)])
