"""onnxsim, kept at a distance: in a process of its own, as it can crash, and believed only after a comparison."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from ran_deploy.converters.graph import IR_VERSION, MODULE, check, model_bytes
from ran_deploy.errors import ConversionError
from ran_deploy.vendors import import_onnxruntime

__all__ = ["relative_difference", "simplified"]

TIMEOUT_S = 600
TINY = 1e-30  # where a network puts out nothing but zeros
MAX_DIFFERENCE = 1e-5  # relative L2; folding a BatchNorm of the test nets moves outputs by 2e-7


def simplified(model: ir.Model) -> tuple[ir.Model, str]:
    """Return the simplified graph and a one-line note; where onnxsim fails or changes outputs, `model` itself.

    Nodes keep the module they came from, found again by the name of their output.
    """
    try:
        candidate = run_onnxsim(model)
        check(candidate)
        require_same_interface(candidate, model)
        difference = np.max([relative_difference(candidate, model, batch) for batch in (1, 3)])  # NaN if one is NaN
    except (ConversionError, OSError, subprocess.SubprocessError) as exc:
        return model, f"onnxsim was not used, the graph stays as exported: {one_line(exc)}"
    if not difference <= MAX_DIFFERENCE:
        return model, f"onnxsim was not used: it moved the outputs by {difference:.1e} (limit {MAX_DIFFERENCE:.0e})"
    restore_modules(candidate, model)
    return candidate, f"onnxsim: {len(model.graph)} -> {len(candidate.graph)} nodes, outputs moved by {difference:.1e}"


def run_onnxsim(model: ir.Model) -> ir.Model:
    """Return what onnxsim makes of `model`. Raises: ConversionError, OSError or SubprocessError if it does not work."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(model_bytes(model))
        command = [sys.executable, "-m", "onnxsim", str(before), str(after)]
        # In its own folder, as -m imports from the current one first.
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0 or not after.exists():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ConversionError(f"onnxsim ended with status {done.returncode}: {last}")
        try:
            candidate = ir.from_proto(onnx.load(after))  # with the weights, which it stores beside a large graph
        except Exception as exc:  # protobuf's, onnx's or onnx_ir's own: they share no base but this
            raise ConversionError(f"onnxsim wrote no ONNX model: {one_line(exc)}") from exc
    candidate.ir_version = IR_VERSION
    candidate.metadata_props.clear()  # onnxsim's own protocol
    return candidate


def require_same_interface(candidate: ir.Model, model: ir.Model) -> None:
    """Raise ConversionError unless inputs and outputs agree in name, type and shape."""

    def interface(graph: ir.Graph) -> list[str]:
        return [f"{value.name} {value.dtype} {value.shape}" for value in (*graph.inputs, *graph.outputs)]

    found, expected = interface(candidate.graph), interface(model.graph)
    if found != expected:
        raise ConversionError(f"inputs and outputs became {found}; expected {expected}")


def relative_difference(model: ir.Model, reference: ir.Model, batch: int) -> float:
    """Return the largest relative L2 distance of an output, on random inputs with `batch` images; NaN if one is NaN.

    Raises: ConversionError if ONNX Runtime cannot run one of the two.
    """
    feeds = {value.name or "": random_array(value, batch) for value in reference.graph.inputs}
    pairs = zip(run_unoptimised(model, feeds), run_unoptimised(reference, feeds), strict=True)
    sizes = [(np.linalg.norm(found - expected), np.linalg.norm(expected)) for found, expected in pairs]
    return float(np.max([error / max(size, TINY) for error, size in sizes]))


def random_array(value: ir.Value, batch: int) -> np.ndarray:
    """Return reproducible contents for a graph input: standard normal, or all byte values."""
    assert value.shape is not None
    assert value.dtype is not None
    shape = [n if isinstance(n, int) else batch for n in value.shape]
    rng = np.random.default_rng(batch)
    if value.dtype == ir.DataType.UINT8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.standard_normal(shape).astype(value.dtype.numpy())


def run_unoptimised(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of the graph exactly as written: ONNX Runtime with every optimisation off."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
        outputs: list[np.ndarray] = session.run(None, feeds)
    except Exception as exc:  # ONNX Runtime's exceptions have no common base but this
        raise ConversionError(f"ONNX Runtime cannot run the graph: {one_line(exc)}") from exc
    return outputs


def restore_modules(candidate: ir.Model, model: ir.Model) -> None:
    """Copy the module paths that onnxsim drops, from the node of `model` that makes the same tensor."""
    modules = {output.name: node.metadata_props.get(MODULE) for node in model.graph for output in node.outputs}
    for node in candidate.graph:
        module = modules.get(node.outputs[0].name)
        if module is not None:
            node.metadata_props[MODULE] = module


def one_line(exc: BaseException) -> str:
    """Return the first line of an exception's text."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
