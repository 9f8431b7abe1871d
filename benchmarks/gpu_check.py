"""Run a bundle's TensorRT engine on this GPU and compare its outputs with the recorded ones.

python benchmarks/gpu_check.py NAME.ran [--backend tensorrt-rtx|tensorrt]
Needs the package of that backend and cuda-python; neither PyTorch nor onnx. Exit status 1 if the engine is off.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import ran_deploy
from ran_deploy.bundle import open_bundle
from ran_deploy.errors import RanDeployError
from ran_deploy.manifest import Task
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.runtime.cuda import current_device
from ran_deploy.verification.metrics import agreeing, relative_l2, row_cosines
from ran_deploy.workflows.golden import read_golden

LARGEST_RELATIVE_L2 = 0.03  # two faithful evaluations of one INT8 graph differ by up to 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", type=Path, help="NAME.ran or NAME.ran.zip")
    parser.add_argument("--backend", choices=["tensorrt-rtx", "tensorrt"], default="tensorrt-rtx")
    arguments = parser.parse_args()

    device = current_device()
    memory_gib = device.memory_bytes / 2**30
    print(f"device   {device.name}, compute capability {device.compute_capability}, {memory_gib:.1f} GiB")
    print(f"driver   CUDA {device.driver}")
    for part, value in fingerprint(arguments.backend).items():
        print(f"{part:8} {value}")

    bundle = open_bundle(arguments.bundle)
    golden = read_golden(bundle)
    images = golden.inputs
    recorded = {name: golden.logits[name] for name in ("tensorrt", "pytorch")}
    distances = []
    with ran_deploy.load(arguments.bundle, backend=arguments.backend) as predictor:
        for batch in sorted({1, len(images) // 2 + 1, len(images)}):
            parts = [predictor.infer_batch(images[i : i + batch]) for i in range(0, len(images), batch)]
            logits = np.concatenate(parts)
            for name, expected in recorded.items():
                if bundle.manifest.task is Task.EMBEDDING:
                    rows = f"cosine at least {row_cosines(expected, logits).min():.5f}"
                else:
                    rows = f"same label {agreeing(expected, logits).mean():.1%}"
                print(f"batch {batch:3}  {name}: relative L2 {relative_l2(expected, logits):.5f}, {rows}")
            distances.append(relative_l2(recorded["tensorrt"], logits))
    worst = np.max(distances)  # NaN if one is NaN
    print(f"{'passed' if worst <= LARGEST_RELATIVE_L2 else 'FAILED'}: worst {worst:.5f}, limit {LARGEST_RELATIVE_L2}")
    return 0 if worst <= LARGEST_RELATIVE_L2 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RanDeployError as exc:
        print(f"gpu_check: {exc}", file=sys.stderr)
        sys.exit(exc.exit_status)
