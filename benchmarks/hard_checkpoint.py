"""Make a checkpoint of exactly the same function that INT8 with one scale a tensor cannot digest.

python benchmarks/hard_checkpoint.py CHECKPOINT HARD.safetensors [--factor 64] [--channels 2] [--seed 0]

In every pre-activation unit each BatchNorm is followed by ReLU and then convolutions. A few channels of it, drawn by
--seed, are multiplied by --factor, a power of two, in the BatchNorm (weight and bias) and divided by it in the input
channels of the convolutions. In floating point that changes no bit of any output; in INT8 the other channels, FACTOR
times smaller than the largest, lose their steps. Nothing is written unless PyTorch's outputs on random images are equal
bit for bit.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ran_deploy.errors import CheckpointError, ConfigError, RanDeployError
from ran_deploy.models import load_checkpoint, save_checkpoint
from ran_deploy.models.units import PreActivationUnit

IMAGES = 16


def hardened(module: nn.Module, factor: float, channels: int, seed: int) -> nn.Module:
    """Return a twin of `module` with `channels` outliers in front of the convolutions of each pre-activation unit.

    Raises: ConfigError if `factor` is no power of two; CheckpointError if there are no such units.
    """
    if factor <= 0 or math.frexp(factor)[0] != 0.5:
        raise ConfigError(f"--factor is {factor}; expected a power of two, as only these are exact.")
    twin = copy.deepcopy(module)
    rng = np.random.default_rng(seed)
    places = list(scalable_places(twin))
    if not places:
        raise CheckpointError("This network has no pre-activation units; give an Attention-N of this project's layout.")
    with torch.no_grad():
        for norm, readers in places:
            chosen = torch.from_numpy(rng.permutation(norm.num_features)[:channels])
            norm.weight[chosen] *= factor
            norm.bias[chosen] *= factor
            for reader in readers:
                reader.weight[:, chosen] /= factor
    return twin


def scalable_places(module: nn.Module) -> Iterator[tuple[nn.BatchNorm2d, tuple[nn.Conv2d, ...]]]:
    """Yield each BatchNorm of the pre-activation units with the convolutions that read it behind its ReLU."""
    for unit in module.modules():
        if isinstance(unit, PreActivationUnit):
            first = (unit.conv1,) if unit.shortcut is None else (unit.conv1, unit.shortcut)
            yield unit.bn1, first
            yield unit.bn2, (unit.conv2,)
            yield unit.bn3, (unit.conv3,)


def require_equal(module: nn.Module, twin: nn.Module, input_size: tuple[int, int]) -> None:
    """Raise CheckpointError unless both give the same outputs for random images, bit for bit."""
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((IMAGES, 3, *input_size), np.float32))
    with torch.inference_mode():
        expected, found = module(images), twin(images)
    if not torch.equal(expected, found):
        worst = float((expected - found).abs().max())
        raise CheckpointError(f"Outputs moved by up to {worst:.1e}; expected none. Choose a smaller --factor.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--factor", type=float, default=64)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint)
    twin = hardened(checkpoint.module, options.factor, options.channels, options.seed)
    require_equal(checkpoint.module, twin, checkpoint.input_size)
    save_checkpoint(
        options.output,
        twin,
        architecture=checkpoint.architecture,
        labels=checkpoint.labels,
        preprocessing=checkpoint.preprocessing,
    )
    places = sum(1 for _ in scalable_places(twin))
    print(f"wrote {options.output}: {options.channels} channels in each of {places} places times {options.factor:g}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"hard_checkpoint: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
