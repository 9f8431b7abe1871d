"""Evaluating any INT8 graph, ours or a peer's, on one of three evaluators; asking TensorRT-RTX whether it takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects.tensorrt import refuse_unsigned
from ran_deploy.converters.graph import model_from_bytes
from ran_deploy.errors import BackendUnavailableError, BuildError, ConversionError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.ort import OrtRunner, open_emulation
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.timing import Timing, measure
from ran_deploy.vendors import import_openvino

BATCH = 50
Infer = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, 3) -> logits (N, classes)


@dataclass(frozen=True)
class Opened:
    """A graph ready to run, and what ends it."""

    infer: Infer
    close: Callable[[], None] = lambda: None


def open_openvino(graph: Path, batch: int | None = None) -> Opened:
    """Compile ONNX or OpenVINO IR with the settings of our engines; with `batch`, for that one size."""
    core = import_openvino().Core()
    model = core.read_model(graph)
    if batch is not None:
        model.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in model.inputs})
    hint = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False}
    request: Any = core.compile_model(model, "CPU", settings).create_infer_request()
    return Opened(lambda images: request.infer({0: images}, share_inputs=True, share_outputs=False)[0])


def open_onnxruntime(graph: Path, batch: int | None = None) -> Opened:
    """Build and open the engine that our builder makes; a session of ONNX Runtime serves every `batch`."""
    del batch
    engine = open_builder("onnxruntime").build(graph.read_bytes(), BuildOptions(precision=Precision.INT8))
    return _of_runner(OrtRunner(engine))


def open_as_written(graph: Path, batch: int | None = None) -> Opened:
    """Evaluate every node of a graph meant for TensorRT exactly as written."""
    del batch
    return _of_runner(open_emulation(graph.read_bytes(), "tensorrt", Precision.INT8))


def _of_runner(runner: Any) -> Opened:
    return Opened(lambda images: runner.infer({INPUT: images})[OUTPUT].astype(np.float32), runner.close)


EVALUATORS = {"OpenVINO": open_openvino, "ONNX Runtime": open_onnxruntime, "as written": open_as_written}
TIMED = ("OpenVINO", "ONNX Runtime")


def logits_of(opened: Opened, images: np.ndarray) -> np.ndarray:
    """Return the logits (N, classes) of all images and close what computed them."""
    try:
        return np.concatenate([opened.infer(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])
    finally:
        opened.close()


def tensorrt_rtx_verdict(graph: Path) -> str:
    """Say whether TensorRT-RTX parses and builds the graph, for which it needs no GPU."""
    if graph.suffix != ".onnx":
        return "not ONNX"
    data = graph.read_bytes()
    try:
        open_builder("tensorrt-rtx").build(data, BuildOptions(precision=Precision.INT8))
    except BackendUnavailableError:
        return "not installed"
    except BuildError as exc:
        return f"refused: {str(exc).partition('refuses the graph: ')[2] or exc}"
    try:
        refuse_unsigned(model_from_bytes(data))
    except ConversionError:
        return "accepted, but unsigned"  # of which it builds layers that clip at 127
    return "accepted"


def graph_bytes(graph: Path) -> int:
    """Return the size of the graph, weights included: OpenVINO keeps them in a file beside it."""
    return sum(path.stat().st_size for path in (graph, graph.with_suffix(".bin")) if path.exists())


def interleaved(
    graphs: Mapping[str, Path], evaluator: str, images: np.ndarray, rounds: int, warm_up: int = 3
) -> dict[str, Timing]:
    """Time one batch on every graph in turn, `rounds` times, so that what slows the machine slows all alike."""
    with ExitStack() as stack:
        runs: dict[str, Infer] = {}
        for name, graph in graphs.items():
            opened = EVALUATORS[evaluator](graph, len(images))
            stack.callback(opened.close)
            runs[name] = opened.infer
            measure(lambda infer=opened.infer: infer(images), warm_up=warm_up, repeats=1)
        durations: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds):
            order = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]
            for name in order:
                timing = measure(lambda infer=runs[name]: infer(images), warm_up=0, repeats=1)
                durations[name] += timing.durations_ms
        return {name: Timing(tuple(found)) for name, found in durations.items()}
