"""What attention outputs cost: one INT8 network with and without them, on both CPU engines, interleaved.

    python benchmarks/attention_outputs.py [ARCHITECTURE] [SIDE] [ROUNDS]

Prints for each engine how far the logits move, and at batch 1 and 8 the medians of one thread with their ratio. Weights
are random and ranges those of random images: neither matters to time.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnx_ir as ir
import torch

from ran_deploy.backends import BACKENDS
from ran_deploy.converters.attention import add_attention_outputs
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.quantize import find_calibrated_tensors, insert_qdq, with_outputs
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.metrics import relative_l2

BATCHES = (1, 8)


def float_graph(name: str, side: int) -> ir.Model:
    """Return a network of the zoo, BatchNorms settled on its own activations, as the graph that takes uint8."""
    torch.manual_seed(0)
    module = build_network(ARCHITECTURES[name].design, 10)
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(8, 3, min(side, 64), min(side, 64)))
    model, _ = run_passes(onnx_from_module(module.eval(), (side, side)))
    add_uint8_prologue(model, Preprocessing(crop=(side, side), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    return model


def ranges_of(model: ir.Model, images: np.ndarray) -> dict[str, float]:
    """Return max |x| of every tensor that some dialect quantises."""
    names = find_calibrated_tensors(model)
    runner = open_reference(model_bytes(with_outputs(model, names)))
    try:
        outputs = runner.infer({"image": images})
    finally:
        runner.close()
    return {name: float(np.abs(outputs[name]).max()) for name in names}


def engine_of(model: ir.Model, backend: str) -> Runner:
    graph = model_bytes(lower(model, BACKENDS[backend], Precision.INT8))
    return open_runner(backend, open_builder(backend).build(graph, BuildOptions(precision=Precision.INT8)), threads=1)


def medians(engines: tuple[Runner, Runner], images: np.ndarray, rounds: int) -> tuple[float, float]:
    """Return the median milliseconds of each engine; they take turns, and turns at being first."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            engines[which].infer({"image": images})
            times[which].append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def main(name: str, side: int, rounds: int) -> None:
    plain = float_graph(name, side)
    attentive = plain.clone()
    records = add_attention_outputs(attentive)
    print(f"{name} at {side}x{side}: {', '.join(f'{r.name} {r.height}x{r.width}' for r in records)}", flush=True)
    images = np.random.default_rng(0).integers(0, 256, (max(BATCHES), side, side, 3), dtype=np.uint8)
    ranges = ranges_of(plain, images)
    for model in (plain, attentive):
        insert_qdq(model, ranges)
    for backend in ("openvino", "onnxruntime"):
        engines = engine_of(attentive, backend), engine_of(plain, backend)
        logits = [engine.infer({"image": images})["logits"] for engine in engines]
        print(f"{backend}: logits move by {relative_l2(logits[1], logits[0]):.1e} relative L2", flush=True)
        for batch in BATCHES:
            with_ms, without_ms = medians(engines, images[:batch], rounds)
            print(f"  batch {batch}: {with_ms:.2f} ms, without {without_ms:.2f} ms, ratio {with_ms / without_ms:.3f}")
        for engine in engines:
            engine.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(
        arguments[0] if arguments else "compact-attention",
        int(arguments[1]) if len(arguments) > 1 else 32,
        int(arguments[2]) if len(arguments) > 2 else 200,
    )
