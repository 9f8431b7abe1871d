"""Whether images look to a network like those it was trained on: its BatchNorm statistics remember them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ran_deploy.preprocessing import ChannelOrder, Preprocessing
from ran_deploy.workflows.exporting.recipe import CIFAR10_MEAN, CIFAR10_STD, IMAGENET_MEAN, IMAGENET_STD

__all__ = ["LayerShift", "batch_norm_shifts", "likeness_warning"]

BATCH = 16
LOOKED_AT = 32  # images: enough for the median of many layers, see docs/int8.md
# Medians over layers. Right images of the demo net had at most 0.08 and 0.18 with 8 images, 0.05 and 0.08 from 32 on;
# a std 1.3 times too large, wrong means, noise, inverted or brighter images had at least 0.52 and 0.50.
FAR_MEAN, FAR_SPREAD = 0.3, 0.4
OTHER_NORMALISATIONS = (
    ("--mean 0,0,0 --std 1,1,1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ("--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ("ImageNet's --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225", IMAGENET_MEAN, IMAGENET_STD),
    ("CIFAR-10's --mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616", CIFAR10_MEAN, CIFAR10_STD),
)


@dataclass(frozen=True, kw_only=True)
class LayerShift:
    """How far what enters one BatchNorm is from its running statistics, as root mean squares over channels.

    `mean` is in running standard deviations, `spread` in natural logarithms of the variance's ratio.
    """

    layer: str
    mean: float
    spread: float


def likeness_warning(module: nn.Module, images: np.ndarray, recipe: Preprocessing) -> str | None:
    """Return what to check if the images look unlike those the network was trained on, else None.

    `images` are prepared uint8 (N, H, W, 3), of which the first LOOKED_AT are taken. Another usual normalisation or
    channel order with which they look like them is named. None too for a network whose BatchNorms tell nothing.
    """
    images = images[:LOOKED_AT]
    found = _medians(module, images, recipe)
    if found is None or not _is_far(*found):
        return None
    swapped = ChannelOrder.BGR if recipe.channel_order is ChannelOrder.RGB else ChannelOrder.RGB
    others = [(f"--channel-order {swapped.value}", images[..., ::-1], recipe)]
    others += [(name, images, replace(recipe, mean=mean, std=std)) for name, mean, std in OTHER_NORMALISATIONS]
    fitting = [name for name, seen, other in others if not _is_far(*(_medians(module, seen, other) or found))]
    advice = (
        f"With {fitting[0]} they would look right: was it trained so?"
        if fitting
        else "Check --mean, --std, --channel-order and --resize against the training code, and that these images are "
        "of the kind it was trained on: ranges of others mislead INT8."
    )
    mean, spread = found
    return (
        "calibration images look unlike the training data to the network's BatchNorms: half of them see means off by "
        f"more than {mean:.2f} standard deviations and variances off by a factor of {np.exp(spread):.1f}. {advice}"
    )


def _medians(module: nn.Module, images: np.ndarray, recipe: Preprocessing) -> tuple[float, float] | None:
    """Return the medians over layers of the shifts of mean and spread; None where no BatchNorm tells any."""
    normalised = (images / 255.0 - np.array(recipe.mean)) / np.array(recipe.std)
    shifts = batch_norm_shifts(module, normalised.transpose(0, 3, 1, 2))
    if not shifts:
        return None
    return float(np.median([shift.mean for shift in shifts])), float(np.median([shift.spread for shift in shifts]))


def _is_far(mean: float, spread: float) -> bool:
    return mean > FAR_MEAN or spread > FAR_SPREAD


class _Moments:
    """Sums of a BatchNorm's inputs by channel; its hook sees every batch."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self.norm = norm
        self.count = 0
        self.total = torch.zeros(norm.num_features, dtype=torch.float64)
        self.squares = torch.zeros(norm.num_features, dtype=torch.float64)

    def hook(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].transpose(0, 1).flatten(1).double()
        self.count += x.shape[1]
        self.total += x.sum(dim=1)
        self.squares += (x * x).sum(dim=1)

    def shift(self, layer: str) -> LayerShift:
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        mean = self.total / self.count
        variance = (self.squares / self.count - mean * mean).clamp(min=0)
        running = self.norm.running_var.double() + self.norm.eps
        moved = (mean - self.norm.running_mean.double()) / running.sqrt()
        spread = torch.log((variance + self.norm.eps) / running)
        return LayerShift(layer=layer, mean=_rms(moved), spread=_rms(spread))


def batch_norm_shifts(module: nn.Module, images: np.ndarray) -> list[LayerShift]:
    """Return the shift of each BatchNorm that `images` reach, in the order they do; none where there is none.

    `images` are normalised float (N, 3, H, W). BatchNorms that keep no statistics, or whose were never updated, tell
    nothing and are left out.
    """
    moments = {
        name: _Moments(layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and _was_trained(layer)
    }
    hooks = [entry.norm.register_forward_pre_hook(entry.hook) for entry in moments.values()]
    try:
        with torch.inference_mode():
            for start in range(0, len(images), BATCH):
                module(torch.from_numpy(np.asarray(images[start : start + BATCH], np.float32)))
    finally:
        for hook in hooks:
            hook.remove()
    return [entry.shift(name) for name, entry in moments.items() if entry.count]


def _was_trained(layer: nn.modules.batchnorm._BatchNorm) -> bool:
    if layer.running_mean is None or layer.running_var is None:
        return False
    return bool(layer.running_mean.any()) or bool((layer.running_var != 1).any())


def _rms(values: Tensor) -> float:
    return float((values * values).mean().sqrt())
