"""Export every kind of network and compare ONNX Runtime and OpenVINO with PyTorch, and have TensorRT-RTX build each.

    python benchmarks/export_every_net.py [NET ...] [--side 224] [--images 32] [--steps 0] [--precision int8 ...]

Weights are random (Kaiming; what ends a unit's branch a quarter of that, as a deep net of full ones amplifies any
rounding), then trained for --steps batches of 32 images, and BatchNorm statistics are those of the net's own
activations on the calibration images: with others, ranges and so int8 mean nothing. It is rounding that is measured
here, not accuracy. Images are those of Fashion-MNIST that come with the examples. Prints a Markdown table; exit status
1 if an export fails, outputs are not finite, or float32 is further than 1e-4 from PyTorch.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from random_nets import BATCH, examples, initialise, normalised, recipe_of, settle
from torch import nn

from ran_deploy.calibration import CalibrationMethod
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.simplify import simplified
from ran_deploy.errors import BackendUnavailableError, RanDeployError
from ran_deploy.models.design import Design
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.exporting.quantization import quantized

LIMITS = {"fp32": 1e-4, "fp16": sys.float_info.max, "int8": sys.float_info.max}
CLASSES = 10
ZOO = ("attention-56", "attention-92", "attentionnext-56", "attentioninception-56", "cifar-attention-56")
ZOO += ("cifar-attention-56-channel", "cifar-attention-56-spatial", "cifar-attention-56-naive", "cifar-attention-452")
PORTS = ("tengshaofeng", "liudaizong", "pytorchcv", "facexzoo", "weiaicunzai")
BACKENDS = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt-rtx": "tensorrt"}  # and their dialects


@dataclass(frozen=True)
class Net:
    """A network and the input size (height, width) it is exported at."""

    build: Callable[[], nn.Module]
    size: tuple[int, int]


def nets(side: int) -> dict[str, Net]:
    """Return the networks by name; those for larger images take `side`, but where they flatten their last map."""
    found: dict[str, Net] = {}
    for name in ZOO:
        architecture = ARCHITECTURES[name]
        size = architecture.input_size if architecture.input_size < (64, 64) else (side, side)
        found[name] = Net(network_of(architecture.design), size)
    for name in PORTS:
        reading = importlib.import_module(LAYOUTS[name]).typical()
        fixed = reading.design is None or reading.design.last_map is not None
        found[f"layout {name}"] = Net(reading.build, reading.input_size if fixed else (side, side))
    return found


def network_of(design: Design) -> Callable[[], nn.Module]:
    """Return what builds the network of `design`."""
    return lambda: build_network(design, CLASSES)


def train(module: nn.Module, images: np.ndarray, labels: np.ndarray, steps: int) -> None:
    """Take `steps` steps of Adam through the images."""
    module.train()
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)
    for step in range(steps):
        chosen = (np.arange(32) + 32 * step) % len(images)
        loss = nn.functional.cross_entropy(module(normalised(images[chosen])), torch.from_numpy(labels[chosen]).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def float_graph(module: nn.Module, size: tuple[int, int]) -> ir.Model:
    """Return the float32 graph that takes bytes, as the export command makes it."""
    model, _ = run_passes(simplified(onnx_from_module(module, size))[0])
    add_uint8_prologue(model, recipe_of(size))
    return model


def evaluated(runner: Runner, images: np.ndarray) -> np.ndarray:
    """Return the outputs for all images, and close the runner."""
    starts = range(0, len(images), BATCH)
    outputs = [runner.infer({"image": images[start : start + BATCH]})["logits"] for start in starts]
    runner.close()
    return np.concatenate(outputs)


def cells(graph: ir.Model, precision: Precision, images: np.ndarray, expected: np.ndarray) -> list[str]:
    """Return one cell for each backend: relative L2 to PyTorch of its engine, for TensorRT of the emulated graph."""
    found = []
    for backend, dialect in BACKENDS.items():
        try:
            data = model_bytes(lower(graph, dialect, precision))
            engine = open_builder(backend).build(data, BuildOptions(precision=precision))
            runner = open_reference(data) if dialect == "tensorrt" else open_runner(backend, engine)
            distance = relative_l2(expected, evaluated(runner, images))
            found.append(f"{distance:.1e}, built" if dialect == "tensorrt" else f"{distance:.1e}")
        except BackendUnavailableError:
            found.append("not here")
        except RanDeployError as exc:
            found.append(f"failed: {exc}")
    return found


def rows(name: str, net: Net, options: argparse.Namespace) -> list[list[str]]:
    """Return a row of the table for each precision."""
    calibration, _ = examples("calibration", options.images, net.size)
    images = examples("test", options.images, net.size)[0].prepared
    torch.manual_seed(0)
    module = net.build()
    initialise(module)
    if options.steps:
        pictures, labels = examples("calibration", 512, net.size)
        train(module, pictures.prepared, labels, options.steps)
    settle(module, calibration.prepared)
    with torch.inference_mode():
        starts = range(0, len(images), BATCH)
        expected = np.concatenate([module(normalised(images[i : i + BATCH])).numpy() for i in starts])
    parameters = sum(parameter.numel() for parameter in module.parameters()) / 1e6
    graph, table = float_graph(module, net.size), []
    for precision in map(Precision, options.precision):
        int8 = precision is Precision.INT8
        artifact = quantized(graph, calibration, CalibrationMethod.MINMAX).model if int8 else graph
        size = f"{net.size[0]}x{net.size[1]}"
        row = [name, f"{parameters:.2f} M", size, precision.value, *cells(artifact, precision, images, expected)]
        print("| " + " | ".join(row) + " |", flush=True)
        table.append(row)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"of: {', '.join(nets(224))}")
    parser.add_argument("--side", type=int, default=224, help="input side of networks for photographs")
    parser.add_argument("--images", type=int, default=32, help="to calibrate with, and as many to compare on")
    parser.add_argument("--steps", type=int, default=0, help="batches of 32 to train for")
    parser.add_argument(
        "--precision", nargs="+", default=["fp32", "fp16", "int8"], choices=[p.value for p in Precision]
    )
    options = parser.parse_args()
    known = nets(options.side)
    print("| net | parameters | input | precision | ONNX Runtime | OpenVINO | TensorRT-RTX dialect |\n|" + "---|" * 7)
    table = [row for name in options.nets or known for row in rows(name, known[name], options)]
    wrong = [row for row in table if "failed" in "".join(row)]
    wrong += [row for row in table if not all(distance_of(cell) <= LIMITS[row[3]] for cell in row[4:])]
    return 1 if wrong else 0


def distance_of(cell: str) -> float:
    """Return the number that a cell starts with, NaN included, 0 where it has none."""
    return 0.0 if cell.startswith(("not here", "failed")) else float(cell.split(",")[0])


if __name__ == "__main__":
    sys.exit(main())
