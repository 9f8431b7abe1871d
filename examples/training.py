"""What the training scripts share: Fashion-MNIST as tensors, and one short, plain recipe to fit a network to it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ran_deploy.datasets.idx import read_idx

__all__ = ["MEAN", "STD", "Progress", "Recipe", "accuracy", "fit", "initialise", "load_split"]

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images before padding


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how hard: nesterov SGD, linear warm-up over a sixth of the steps, then a cosine to zero."""

    epochs: int
    batch: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.02
    average_decay: float = 0.995
    bfloat16: bool = False  # activations and products; weights, statistics and the loss stay float32
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """State after an epoch; `average` holds the exponential moving average of the weights, the network to keep."""

    epoch: int
    loss: float
    average: nn.Module
    minutes: float
    cpu_minutes: float


def load_split(data: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return uint8 images (N, 32, 32), zero-padded from 28, and int64 labels (N,)."""
    images = read_idx(data / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(data / f"{split}-labels-idx1-ubyte.gz")
    return torch.from_numpy(np.pad(images, ((0, 0), (2, 2), (2, 2)))), torch.from_numpy(labels.astype(np.int64))


def normalised(images: Tensor) -> Tensor:  # (N, H, W) uint8 -> (N, 3, H, W) float32
    x = (images.float() / 255 - MEAN) / STD
    return x[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return each image shifted by up to 2 pixels and mirrored half the time."""
    n, h, w = images.shape
    rows = torch.arange(h) + torch.randint(-2, 3, (n, 1), generator=rng)
    columns = torch.arange(w) + torch.randint(-2, 3, (n, 1), generator=rng)
    columns = torch.where(torch.rand(n, 1, generator=rng) < 0.5, w - 1 - columns, columns)
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    shifted = images[torch.arange(n)[:, None, None], rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None]]
    return shifted * inside


def initialise(module: nn.Module) -> None:
    """Kaiming weights; the last convolution of every unit starts small, so that depth does not amplify."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out")
            if name.endswith("conv3"):
                part.weight.data.mul_(0.25)


@torch.no_grad()
def accuracy(module: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return top-1 in percent."""
    module.eval()
    device = next(module.parameters()).device
    predictions = [module(normalised(batch).to(device)).argmax(1).cpu() for batch in images.split(500)]
    return (torch.cat(predictions) == labels).double().mean().item() * 100


def fit(
    module: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, report: Callable[[Progress], None]
) -> nn.Module:
    """Train `module` where its parameters are; returns the averaged network. `report` is called after every epoch."""
    rng = torch.Generator().manual_seed(recipe.seed)
    device = next(module.parameters()).device
    module = module.to(memory_format=torch.channels_last)
    # BatchNorm statistics are averaged along with the weights they belong to.
    average = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.average_decay), use_buffers=True
    )
    steps = len(images) // recipe.batch
    optimiser, schedule = optimiser_of(module, recipe, recipe.epochs * steps)
    wall, cpu = time.monotonic(), time.process_time()
    for epoch in range(recipe.epochs):
        module.train()
        total = 0.0
        for batch in torch.randperm(len(images), generator=rng)[: steps * recipe.batch].split(recipe.batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bfloat16):
                logits = module(normalised(augmented(images[batch], rng)).to(device))
            loss = F.cross_entropy(logits.float(), labels[batch].to(device), label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(module)
            total += loss.item()
        minutes, cpu_minutes = (time.monotonic() - wall) / 60, (time.process_time() - cpu) / 60
        report(Progress(epoch + 1, total / steps, average.module, minutes, cpu_minutes))
    return average.module


def optimiser_of(
    module: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the optimiser, with weight decay on weights alone, and its schedule over `steps`."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=recipe.learning_rate, momentum=0.9, nesterov=True,
    )  # fmt: skip
    warm_up = max(steps // 6, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(step / warm_up, 0.5 * (1 + math.cos(math.pi * max(step - warm_up, 0) / (steps - warm_up)))),
    )
    return optimiser, schedule
