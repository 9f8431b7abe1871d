"""Train the compact RAN of the zoo on Fashion-MNIST with a CPU: the checkpoint that ships with this project.

python examples/train_fashion_mnist.py --data /usr/share/datasets/fashion-mnist --output compact.safetensors
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ran_deploy.datasets.idx import read_idx
from ran_deploy.models.checkpoint import save_checkpoint
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES

LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images before padding


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
    module.eval()
    predictions = [module(normalised(batch)).argmax(1) for batch in images.split(500)]
    return (torch.cat(predictions) == labels).double().mean().item() * 100


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    images, labels = load_split(options.data, "train")
    test_images, test_labels = load_split(options.data, "t10k")
    architecture = ARCHITECTURES["compact-attention"]
    module = build_network(architecture.design, num_classes=10)
    initialise(module)
    module = module.to(memory_format=torch.channels_last)
    # BatchNorm statistics are averaged along with the weights they belong to.
    average = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim == 1]
    optimiser = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}],
        lr=options.learning_rate, momentum=0.9, nesterov=True,
    )  # fmt: skip
    steps = options.epochs * (len(images) // options.batch)
    warm_up = steps // 6
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda step: min(step / warm_up, 0.5 * (1 + math.cos(math.pi * max(step - warm_up, 0) / (steps - warm_up)))),
    )
    compiled = torch.compile(module)
    wall, cpu = time.monotonic(), time.process_time()
    for epoch in range(options.epochs):
        module.train()
        total = 0.0
        order = torch.randperm(len(images), generator=rng)[: len(images) // options.batch * options.batch]
        for batch in order.split(options.batch):
            logits = compiled(normalised(augmented(images[batch], rng)))
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(module)
            total += loss.item()
        print(
            f"epoch {epoch + 1}/{options.epochs}: loss {total / (len(order) // options.batch):.4f}, "
            f"test {accuracy(average.module, test_images, test_labels):.2f} %, "
            f"{(time.monotonic() - wall) / 60:.1f} min, {(time.process_time() - cpu) / 60:.1f} CPU min",
            flush=True,
        )
        if options.output is not None:
            save(average.module, options)


def save(module: nn.Module, options: argparse.Namespace) -> None:
    recipe = {"resize": None, "crop": [32, 32], "mean": [MEAN] * 3, "std": [STD] * 3}
    save_checkpoint(
        options.output,
        module,
        architecture="compact-attention",
        labels=LABELS,
        preprocessing=json.dumps(recipe),
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four IDX files")
    parser.add_argument("--output", type=Path, help="checkpoint to write (safetensors)")
    parser.add_argument("--epochs", type=int, default=11)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_options())
