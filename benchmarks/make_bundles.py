"""Make the bundles that gpu_check.py looks at: the demo network, Attention-56 and Attention-92 in three precisions.

    python benchmarks/make_bundles.py bundles/ [--nets demo ...]

Needs ran-deploy[export], no GPU; some minutes a network. Attention-56 and -92 have random weights of a sane size: their
speed and whether an engine computes them do not depend on training. Their checkpoints are kept beside the bundles, for
PyTorch. Engines take batches of 1 to 128.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from random_nets import EXAMPLE, examples, initialise, recipe_of, settle

from ran_deploy.errors import RanDeployError
from ran_deploy.manifest import BatchProfile
from ran_deploy.models import save_checkpoint
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import architecture_named
from ran_deploy.precision import Precision
from ran_deploy.workflows.export import ExportConfig, export_bundle

DEMO = "demo"
NETS = (DEMO, "attention-56", "attention-92")
IMAGES = EXAMPLE / "calibration.npz"  # golden inputs too: INT8 is calibrated for no noise
COUNT = 32  # to settle and calibrate random weights on
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
        settle(module, examples("calibration", COUNT, architecture.input_size)[0].prepared)
        save_checkpoint(path, module, architecture=name, preprocessing=recipe_of(architecture.input_size))
    return path


def make(name: str, folder: Path, precisions: Sequence[Precision]) -> None:
    """Export one network in each precision, but for bundles that are there already."""
    checkpoint = EXAMPLE / "compact.safetensors" if name == DEMO else random_checkpoint(name, folder)
    for precision in precisions:
        output = folder / f"{name}-{precision.value}.ran"
        if output.exists():
            continue
        say(f"{output.name}: exporting")
        config = ExportConfig(
            checkpoint=checkpoint,
            output=output,
            precision=precision,
            calibration_data=IMAGES if precision is Precision.INT8 else None,
            calibration_images=512 if name == DEMO else COUNT,
            batch=BATCH,
            golden=str(IMAGES),
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
