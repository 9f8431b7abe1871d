"""Train a RAN of the zoo on Fashion-MNIST with a CPU; the defaults made the checkpoint that ships with this project.

python examples/train_fashion_mnist.py --data /usr/share/datasets/fashion-mnist --output compact.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn
from training import MEAN, STD, Progress, Recipe, accuracy, fit, initialise, load_split

from ran_deploy.models.checkpoint import save_checkpoint
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.preprocessing import Preprocessing

LABELS = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
SMALL = [name for name, architecture in ARCHITECTURES.items() if architecture.input_size == (32, 32)]


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    images, labels = load_split(options.data, "train")
    test = load_split(options.data, "t10k")
    module = build_network(ARCHITECTURES[options.architecture].design, len(LABELS))
    initialise(module)

    def report(progress: Progress) -> None:
        print(
            f"epoch {progress.epoch}/{options.epochs}: loss {progress.loss:.4f}, "
            f"test {accuracy(progress.average, *test):.2f} %, "
            f"{progress.minutes:.1f} min, {progress.cpu_minutes:.1f} CPU min",
            flush=True,
        )
        if options.output is not None:
            save(progress.average, options)

    recipe = Recipe(
        epochs=options.epochs,
        batch=options.batch,
        learning_rate=options.learning_rate,
        bfloat16=options.bfloat16,
        seed=options.seed,
    )
    fit(module, images, labels, recipe, report)


def save(module: nn.Module, options: argparse.Namespace) -> None:
    recipe = Preprocessing(crop=(32, 32), resize=None, mean=(MEAN,) * 3, std=(STD,) * 3)
    save_checkpoint(options.output, module, architecture=options.architecture, labels=LABELS, preprocessing=recipe)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four IDX files")
    parser.add_argument("--output", type=Path, help="checkpoint to write (safetensors)")
    parser.add_argument("--architecture", choices=SMALL, default="compact-attention")
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision, quicker on CPUs with AVX512-BF16")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    train(parse_options())
