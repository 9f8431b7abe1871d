"""Does attention residual learning help? Small RANs on Fashion-MNIST under one fixed budget, over several seeds.

python examples/attention_residual_learning.py depth     --data FOLDER --output results.jsonl
python examples/attention_residual_learning.py attention --data FOLDER --output results.jsonl
python examples/attention_residual_learning.py noise     --data FOLDER --output results.jsonl

depth: (1 + M) T against M T at growing depth (the paper's table 3). attention: mixed, channel and spatial (table 1).
noise: a RAN against its trunk alone, with a share of the training labels drawn at random (table 5). Each run is a
line of `results.jsonl`; runs that are there already are not repeated. The table gives the mean test error and the 95 %
interval of that mean over the seeds (Student's t). docs/attention_residual_learning.md has the results.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from training import Recipe, accuracy, fit, initialise, load_split

from ran_deploy.models.design import Attention, Design, Learning, Stage, Stem
from ran_deploy.models.network import build_network

TRAINING_IMAGES = 12_000
EPOCHS = 6
SEEDS = (0, 1, 2)
T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t by number of runs


@dataclass(frozen=True)
class Run:
    """One network under one condition."""

    experiment: str
    name: str
    condition: str
    design: Design
    noise: float = 0.0


def ran(modules: int, **choices: object) -> Design:
    """Return a narrow RAN with that many attention modules in each of three stages, at 16x16, 8x8 and 4x4."""
    widths_depths = ((32, 2), (64, 1), (128, 1))
    stages = [Stage(width=w, stride=1 + (w > 32), modules=modules, mask_depth=k) for w, k in widths_depths]
    return replace(Design(stem=Stem.CONV5_STRIDE2, stem_width=16, stages=tuple(stages)), **choices)


def trunk_of(design: Design) -> Design:
    """Return the same network without masks: every module's units in a row."""
    units = design.p + design.t + design.units_after
    stages = [replace(s, modules=0, mask_depth=0, closing_units=s.modules * units) for s in design.stages]
    return replace(design, stages=tuple(stages))


def runs_of(experiment: str) -> Iterator[Run]:
    if experiment == "depth":
        for modules in (1, 2, 3, 4):
            for learning in Learning:
                design = ran(modules, learning=learning)
                yield Run(experiment, learning.value, f"depth {design.trunk_depth}", design)
    elif experiment == "attention":
        for attention in Attention:
            yield Run(experiment, attention.value, "no noise", ran(1, attention=attention))
    else:
        for noise in (0.0, 0.1, 0.3, 0.5, 0.7):
            for name, design in (("RAN", ran(2)), ("trunk alone", trunk_of(ran(2)))):
                yield Run(experiment, name, f"{noise:.0%} noise", design, noise)


def with_noise(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return the labels with that share of them drawn anew, each class as likely."""
    rng = torch.Generator().manual_seed(1000 + seed)
    chosen = torch.rand(len(labels), generator=rng) < share
    return torch.where(chosen, torch.randint(0, 10, labels.shape, generator=rng), labels)


def error_of(run: Run, seed: int, options: argparse.Namespace) -> float:
    """Train the run's network and return its test error in percent."""
    torch.manual_seed(seed)
    images, labels = load_split(options.data, "train")
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:TRAINING_IMAGES]
    module = build_network(run.design, 10)
    initialise(module)
    recipe = Recipe(epochs=EPOCHS, seed=seed)
    trained = fit(
        module.to(options.device),
        images[chosen],
        with_noise(labels[chosen], run.noise, seed),
        recipe,
        report=lambda progress: None,
    )
    return 100 - accuracy(trained, *load_split(options.data, "t10k"))


def measure(options: argparse.Namespace) -> dict[tuple[str, str], dict[int, float]]:
    """Return the test errors by condition, network and seed, training what is not in the output yet."""
    errors: dict[tuple[str, str], dict[int, float]] = {}
    if options.output.exists():
        for line in options.output.read_text().splitlines():
            row = json.loads(line)
            if row["experiment"] == options.experiment:
                errors.setdefault((row["condition"], row["name"]), {})[row["seed"]] = row["error"]
    for seed in SEEDS:
        for run in runs_of(options.experiment):
            done = errors.setdefault((run.condition, run.name), {})
            if seed not in done:
                done[seed] = error_of(run, seed, options)
                row = {"experiment": run.experiment, "condition": run.condition, "name": run.name}
                with options.output.open("a") as file:
                    file.write(json.dumps({**row, "seed": seed, "error": done[seed]}) + "\n")
                print(f"{run.condition}, {run.name}, seed {seed}: {done[seed]:.2f} %", flush=True)
    return errors


def interval(values: list[float]) -> tuple[float, float]:
    """Return mean and half width of its 95 % interval."""
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return mean, T_975[len(values)] * deviation / math.sqrt(len(values))


def print_table(errors: dict[tuple[str, str], dict[int, float]]) -> None:
    names = list(dict.fromkeys(name for _, name in errors))
    print(f"\n| test error, % | {' | '.join(names)} |")
    print("|---|" + "---|" * len(names))
    for condition in dict.fromkeys(condition for condition, _ in errors):
        cells = ["{:.2f} ± {:.2f}".format(*interval(list(errors[condition, name].values()))) for name in names]
        print(f"| {condition} | {' | '.join(cells)} |")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=["depth", "attention", "noise"])
    parser.add_argument("--data", type=Path, required=True, help="folder with the four IDX files")
    parser.add_argument("--output", type=Path, required=True, help="runs, one JSON object a line; appended to")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


if __name__ == "__main__":
    print_table(measure(parse_options()))
