"""Compare what trtexec computed with what expected.json holds: python3 check.py

ran-deploy writes this file beside a graph for devices that it does not run on. It needs Python 3.8 (JetPack 5) or newer
and no packages. For each batch size N of expected.json it reads found_N.json, which trtexec --exportOutput has written.
Exit status 0: the engine computes the network; 1: it does not, do not use it; 2: something is missing.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any


def read_outputs(path: Path) -> dict[str, list[float]]:
    """Return the numbers of each output; trtexec writes nan and inf as C++ prints them."""
    text = re.sub(r"-?\bnan\b", "NaN", path.read_text())
    return {output["name"]: output["values"] for output in json.loads(re.sub(r"\binf\b", "Infinity", text))}


def relative_l2(expected: list[float], found: list[float]) -> float:
    """Return ||found - expected|| / ||expected||; infinity for another length and where a number is not finite."""
    if len(found) != len(expected) or not all(math.isfinite(value) for value in found):
        return math.inf
    error = math.sqrt(sum((f - e) ** 2 for e, f in zip(expected, found)))  # noqa: B905 (Python 3.10)
    norm = math.sqrt(sum(value**2 for value in expected))
    if norm == 0:
        return math.inf if error else 0.0
    return error / norm


def cosine(first: list[float], second: list[float]) -> float:
    """Return the cosine of the angle between two vectors; 0 where one has no length."""
    norms = math.sqrt(sum(a * a for a in first)) * math.sqrt(sum(b * b for b in second))
    return sum(a * b for a, b in zip(first, second)) / norms if norms else 0.0  # noqa: B905 (Python 3.10)


def is_wrong(row: int, output: list[float], expected: dict[str, Any]) -> bool:
    """Return whether an output has another label, or another direction, than is certain for this row."""
    label, lowest = expected["labels"][row], expected["lowest_cosines"][row]
    if label is not None and output.index(max(output)) != label:
        return True
    return lowest is not None and cosine(expected["rows"][row], output) < lowest


def check(expected: dict[str, Any], outputs: dict[str, list[float]], size: int) -> tuple[bool, str]:
    """Return whether one batch is right, and a line on it: the first `size` rows, begun again where there are fewer."""
    rows = [i % len(expected["rows"]) for i in range(size)]
    width = len(expected["rows"][0])
    values = outputs.get(expected["output"], [])
    if len(values) != size * width:
        return False, f"{len(values)} values of {expected['output']}, expected {size * width}"
    distance = relative_l2([value for row in rows for value in expected["rows"][row]], values)
    if math.isinf(distance):
        return False, "outputs are NaN or infinite"
    wrong = sum(is_wrong(row, values[i * width : (i + 1) * width], expected) for i, row in enumerate(rows))
    line = f"relative L2 {distance:.4f} of {expected['tolerance']:.4f} allowed, {wrong} of {size} rows wrong"
    distances = [distance]
    for name, masks in sorted(expected["attention"].items()):  # held as 1 + M, the factor of the trunk
        recorded = [1 + value for row in rows for value in masks[row]]
        distances.append(relative_l2(recorded, [1 + value for value in outputs.get(name, [])]))
        line += f", {name} {distances[-1]:.4f}"
    return max(distances) <= expected["tolerance"] and not wrong, line


def main(folder: Path) -> int:
    """Print a line for each batch size and return the exit status."""
    expected = json.loads((folder / "expected.json").read_text())
    status = 0
    for size in expected["batches"]:
        path = folder / f"found_{size}.json"
        try:
            outputs = read_outputs(path)
        except (OSError, ValueError) as exc:
            print(f"batch {size}: {path} cannot be read ({exc}). Run build.sh again.", file=sys.stderr)
            return 2
        passed, line = check(expected, outputs, size)
        print(f"batch {size}: {'passed' if passed else 'FAILED'}: {line}")
        status = status if passed else 1
    return status


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
