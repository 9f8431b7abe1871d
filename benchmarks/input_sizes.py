"""Export one network at many input sizes and compare ONNX Runtime and OpenVINO with PyTorch at each.

    python benchmarks/input_sizes.py [ARCHITECTURE]

Thirty different sides between 32 and 420, height and width always different; exit status 1 if any relative L2 exceeds
1e-4. Upsampling takes its size from another tensor, so every side makes another set of Resize scales.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner
from ran_deploy.verification.metrics import relative_l2

LIMIT = 1e-4
SIDES = np.linspace(32, 420, 30).round().astype(int).tolist()
SIZES = list(zip(SIDES[:15], reversed(SIDES[15:]), strict=True))  # short by tall to middling by middling


def network(name: str) -> nn.Module:
    """Return a network of the zoo whose BatchNorms keep activations near unit size, as trained ones do."""
    torch.manual_seed(0)
    module = build_network(ARCHITECTURES[name].design, 10)
    with torch.no_grad():
        for _ in range(8):  # running statistics of its own activations
            module(torch.randn(8, 3, 64, 64))
    return module.eval()


def main(name: str) -> int:
    module, worst = network(name), 0.0
    for height, width in SIZES:
        model, _ = run_passes(onnx_from_module(module, (height, width)))
        graph = model_bytes(model)
        images = torch.randn(2, 3, height, width)
        with torch.no_grad():
            expected = module(images).numpy()
        distances = {}
        for backend in ("onnxruntime", "openvino"):
            runner = open_runner(backend, open_builder(backend).build(graph, BuildOptions(precision=Precision.FP32)))
            distances[backend] = relative_l2(expected, runner.infer({"image": images.numpy()})["logits"])
            runner.close()
        worst = np.max([worst, *distances.values()])  # NaN if one is NaN
        print(
            f"{height:>4}x{width:<4}" + "".join(f"  {key} {value:.1e}" for key, value in distances.items()), flush=True
        )
    print(f"{name}: worst relative L2 {worst:.1e} over {len(SIZES)} sizes, limit {LIMIT:.0e}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "compact-attention"))
