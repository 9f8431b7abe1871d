"""A fault of an engine as files that need nothing of ours: to be run, and attached to a report to the vendor."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.converters.graph import model_bytes
from ran_deploy.errors import OutputError
from ran_deploy.precision import Precision
from ran_deploy.whole_file import write_whole
from ran_deploy.workflows.diagnosis.cuts import EngineCuts, distance
from ran_deploy.workflows.diagnosis.engine_divergence import Departure
from ran_deploy.workflows.diagnosis.reproduction_scripts import script

__all__ = ["Reproduction", "check_folder", "write_reproduction"]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Where the files are, the rows of input they hold, and the relative L2 that they show."""

    folder: Path
    files: tuple[str, ...]
    batch: int
    error: float


def check_folder(folder: Path) -> None:
    """Create the folder that files are to be written to. Raises: OutputError if that is impossible."""
    refuse_inside_bundle(folder / "model.onnx")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"Cannot write {folder} ({exc.strerror}). Give another --diagnose-output.") from exc


def write_reproduction(
    folder: Path, name: str, cuts: EngineCuts, departure: Departure, facts: Mapping[str, str], precision: Precision
) -> Reproduction:
    """Write NAME.onnx, NAME.npz, NAME.py and NAME.txt to `folder`, with as few inputs as still show the fault.

    `facts` describe machine and versions. Raises: OutputError.
    """
    model = cuts.model(departure.part)
    feeds, found = _fewest_rows(cuts, departure, model)
    expected = {output: array for output, array in cuts.graph.evaluate(model, feeds).items() if output in found}
    error = max(distance(expected[output], found[output]) for output in expected)
    check_folder(folder)
    files = {
        f"{name}.onnx": model_bytes(model),
        f"{name}.npz": _arrays(feeds, expected, found),
        f"{name}.py": script(cuts.backend, name, precision, departure.limit).encode(),
        f"{name}.txt": _explanation(name, cuts, departure, facts, error).encode(),
    }
    for file, data in files.items():
        write_whole(folder / file, data)
    return Reproduction(folder=folder, files=tuple(files), batch=len(next(iter(feeds.values()))), error=error)


def _fewest_rows(
    cuts: EngineCuts, departure: Departure, model: ir.Model
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return inputs and the engine's outputs for the worst row alone, if it shows the fault by itself, else a batch."""
    feeds = cuts.feeds(model)
    exact = cuts.graph.tensors(departure.part.outputs)
    order, found = cuts.run(model, feeds)
    errors = [max(distance(exact[n][row], found[n][i]) for n in exact) for i, row in enumerate(order)]
    worst = int(np.argmax(errors))
    start = worst // cuts.batch * cuts.batch
    batch = order[start : start + cuts.batch]
    for rows in (order[worst : worst + 1], batch):
        few = {name: array[rows] for name, array in feeds.items()}
        _, outputs = cuts.run(model, few, batch=max(len(rows), cuts.smallest_batch))
        outputs = {name: array[: len(rows)] for name, array in outputs.items()}
        if max(distance(exact[name][rows], outputs[name]) for name in exact) > departure.limit:
            break
    return few, outputs


def _arrays(*kinds: Mapping[str, np.ndarray]) -> bytes:
    """Return an .npz with the arrays by kind and number, and the tensors' names, which may hold a slash."""
    inputs, expected, found = kinds
    arrays: dict[str, Any] = {"input_names": np.array(list(inputs)), "output_names": np.array(list(expected))}
    arrays |= {f"input_{i}": array for i, array in enumerate(inputs.values())}
    for i, name in enumerate(expected):
        arrays |= {f"expected_{i}": expected[name], f"found_{i}": found[name]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _explanation(name: str, cuts: EngineCuts, departure: Departure, facts: Mapping[str, str], error: float) -> str:
    where = f"{departure.operator} {departure.node!r}, which makes tensor {departure.tensor!r}"
    lines = [
        f"{name}.onnx: {departure.nodes} nodes around {where}.",
        f"{name}.npz: its inputs (input_0, ...), the outputs of evaluating it node by node as written (expected_0, "
        f"..., by ONNX Runtime with ORT_DISABLE_ALL), and those of the {cuts.backend} engine (found_0, ...), in the "
        "order of input_names and output_names.",
        f"{name}.py: runs the graph with the vendor's own API, compares, and exits with 1 if the outputs differ.",
        f"Found: relative L2 {error:.4g}, where at most {departure.limit:.4g} is rounding.",
        "Found on: " + ", ".join(f"{part} {value}" for part, value in facts.items()) + ".",
    ]
    return "\n\n".join(textwrap.fill(line, 100, break_long_words=False) for line in lines) + "\n"
