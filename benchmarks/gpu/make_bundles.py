"""Make the bundles that gpu_check.py looks at: the demo network, Attention-56 and Attention-92 in three precisions.

    python benchmarks/gpu/make_bundles.py bundles/ [--nets demo ...]

Needs ran-deploy[export], no GPU; some minutes a network. Attention-56 and -92 have random weights of a sane size: their
speed and whether an engine computes them do not depend on training. Their checkpoints are kept beside the bundles, for
PyTorch. Engines take batches of 1 to 128.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ran_deploy.errors import RanDeployError
from ran_deploy.manifest import BatchProfile
from ran_deploy.models import save_checkpoint
from ran_deploy.models.network import build_network
from ran_deploy.models.units import PreActivationUnit
from ran_deploy.models.zoo import architecture_named
from ran_deploy.precision import Precision
from ran_deploy.workflows.export import ExportConfig, export_bundle
from ran_deploy.workflows.golden import synthetic_inputs

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"
DEMO = "demo"
NETS = (DEMO, "attention-56", "attention-92")
IMAGES = 32  # to calibrate and settle on
BATCH = BatchProfile(minimum=1, optimum=8, maximum=128)


def say(line: str) -> None:
    """Tell what is being done."""
    print(line, file=sys.stderr, flush=True)


def random_checkpoint(name: str, folder: Path) -> Path:
    """Return the checkpoint of the network `name`, written now unless it is there: weights are drawn from a seed."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        say(f"{name}: weights")
        architecture = architecture_named(name)
        torch.manual_seed(0)
        module = build_network(architecture.design, architecture.num_classes)
        initialise(module)
        settle(module, synthetic_inputs(architecture.input_size, IMAGES))
        save_checkpoint(path, module, architecture=name)
    return path


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Draw weights with which activations keep their size: what ends a unit's branch is small."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    for part in module.modules():
        if isinstance(part, PreActivationUnit):
            part.conv3.weight.mul_(0.25)


@torch.no_grad()
def settle(module: nn.Module, images: np.ndarray) -> None:
    """Set BatchNorm statistics to those of the network's own activations; images are uint8 (N, H, W, 3)."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the plain average
    module.train()
    for image in np.split(images, len(images) // 4):
        module(torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255)
    module.eval()


def make(name: str, folder: Path, precisions: Sequence[Precision]) -> None:
    """Export one network in each precision, but for bundles that are there already."""
    checkpoint = EXAMPLE / "compact.safetensors" if name == DEMO else random_checkpoint(name, folder)
    for precision in precisions:
        output = folder / f"{name}-{precision.value}.ran"
        if output.exists():
            continue
        say(f"{output.name}: exporting")
        calibration = EXAMPLE / "calibration.npz" if precision is Precision.INT8 else None
        config = ExportConfig(
            checkpoint=checkpoint,
            output=output,
            precision=precision,
            calibration_data=calibration,
            calibration_images=IMAGES if name != DEMO else 512,
            batch=BATCH,
            golden=None if name == DEMO and calibration else "synthetic",
        )
        export_bundle(config, say)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--precisions", nargs="+", choices=[each.value for each in Precision], metavar="PRECISION")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    precisions = [Precision(value) for value in options.precisions] if options.precisions else list(Precision)
    for name in options.nets:
        make(name, options.folder, precisions)
    say(f"next, on the device: python benchmarks/gpu_check.py {options.folder}/*.ran")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"make_bundles: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
