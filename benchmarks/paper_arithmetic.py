"""The paper's parameters, multiply-adds and depths beside those of our networks.

    python benchmarks/paper_arithmetic.py

Prints a Markdown table, the one in docs/models.md. Exit status 1 if a number differs from the paper's for no known
reason. The paper's side is benchmarks/paper.json; ours is counted from the designs, and of the ResNets from their
published structure.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ran_deploy.models.arithmetic import Cost, cost_of
from ran_deploy.models.zoo import ARCHITECTURES

PAPER = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
SCALES = {"parameters": (1e6, " M"), "multiply_adds": (1e9, " G"), "trunk_depth": (1, ""), "units": (1, "")}
WORDS = {"multiply_adds": "multiply-adds", "trunk_depth": "trunk depth", "units": "trunk units"}
# Blocks a stage, and whether a strided bottleneck strides in its first convolution or in the 3x3. Source: He et al.
# 2015, arXiv:1512.03385, table 1, and its Caffe release; He et al. 2016, arXiv:1603.05027, and its Torch release.
RESNETS = {"ResNet-152": ((3, 8, 36, 3), True), "ResNet-200": ((3, 24, 36, 3), False)}


class Verdict(str, Enum):
    AGREES = "agrees"
    WITH_STATISTICS = "agrees if BatchNorm statistics count"
    AUTHORS = "the authors' own files say what we do"
    PAPER = "the paper's own table says otherwise"
    UNSTATED = "cannot agree"
    DIFFERS = "DIFFERS"


@dataclass(frozen=True)
class Row:
    """One number of the paper; `ours` is in the same unit, a digit longer."""

    where: str
    what: str
    paper: str
    ours: str
    verdict: Verdict
    note: str = ""

    def __str__(self) -> str:
        note = f": {self.note}" if self.note else ""
        return f"| {self.where} | {self.what} | {self.paper} | {self.ours} | {self.verdict.value}{note} |"


def resnet(blocks: tuple[int, ...], *, strides_first: bool) -> Cost:
    """Return the cost of a bottleneck ResNet for 224x224 images and 1000 classes."""

    def conv(inputs: int, outputs: int, kernel: int, side: int) -> Cost:
        weights = inputs * outputs * kernel**2
        return Cost(weights + 2 * outputs, 2 * outputs, weights * side**2)  # each has its BatchNorm

    cost, channels, side = conv(3, 64, 7, 112), 64, 56
    for count, width in zip(blocks, (64, 128, 256, 512), strict=True):
        out = 56 * 64 // width
        for block in range(count):
            cost += conv(channels, width, 1, out if strides_first else side)
            cost += conv(width, width, 3, out) + conv(width, 4 * width, 1, out)
            cost += conv(channels, 4 * width, 1, out) if block == 0 else Cost()
            channels, side = 4 * width, out
    return cost + Cost(channels * 1000 + 1000, 0, channels * 1000)


def counts(name: str) -> tuple[dict[str, int], int]:
    """Return our numbers for a network as the paper names it, and how many BatchNorm statistics it has."""
    if name in RESNETS:
        blocks, strides_first = RESNETS[name]
        cost, units = resnet(blocks, strides_first=strides_first), sum(blocks)
    else:
        architecture = ARCHITECTURES[name.lower()]
        cost = cost_of(architecture.design, architecture.num_classes, architecture.input_size)
        units = (architecture.design.trunk_depth - 2) // 3
    numbers = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
    return {**numbers, "trunk_depth": 3 * units + 2, "units": units}, cost.statistics


def rounded_like(text: str, value: float) -> str:
    """Return the value with as many digits after the point as the printed number has."""
    return f"{value:.{len(text.partition('.')[2])}f}"


def number_rows() -> Iterator[Row]:
    for where, networks in PAPER["tables"].items():
        for name, printed in networks.items():
            for quantity, text in printed.items():
                yield number_row(where, name, quantity, text)


def number_row(where: str, name: str, quantity: str, text: str) -> Row:
    """Compare one number of a table."""
    divisor, unit = SCALES[quantity]
    numbers, statistics = counts(name)
    count = numbers[quantity]
    verdict, note = Verdict.DIFFERS, ""
    if rounded_like(text, count / divisor) == text:
        verdict = Verdict.AGREES
    elif quantity == "parameters" and rounded_like(text, (count + statistics) / divisor) == text:
        verdict, note = Verdict.WITH_STATISTICS, f"{(count + statistics) / divisor:.3f}{unit}"
    elif PAPER["authors"].get(name, {}).get(quantity) == count:
        verdict = Verdict.AUTHORS
    elif name in PAPER["unstated"]:
        verdict, note = Verdict.UNSTATED, f"the paper does not give {PAPER['unstated'][name]}"
    ours = f"{count / divisor:.3f}{unit}" if divisor > 1 else str(count)
    return Row(where, f"{name}: {WORDS.get(quantity, quantity)}", f"{text}{unit}", ours, verdict, note)


def claim_row(claim: dict[str, Any]) -> Row:
    """Compare a ratio that the text states; where it is off, the ratio of the paper's own numbers says why."""
    part, whole, quantity, text = claim["part"], claim["whole"], claim["quantity"], claim["percent"]
    ours = 100 * counts(part)[0][quantity] / counts(whole)[0][quantity]
    printed = 100 * printed_number(part, quantity) / printed_number(whole, quantity)
    verdict, note = Verdict.DIFFERS, ""
    if rounded_like(text, ours) == text:
        verdict = Verdict.AGREES
    elif rounded_like(text, printed) != text:
        verdict, note = Verdict.PAPER, f"{printed:.1f} %"
    elif any(PAPER["authors"].get(name, {}).get(quantity) == counts(name)[0][quantity] for name in (part, whole)):
        verdict = Verdict.AUTHORS
    what = f"{part}: {WORDS.get(quantity, quantity)} of {whole}"
    return Row(claim["where"], what, f"{text} %", f"{ours:.1f} %", verdict, note)


def printed_number(name: str, quantity: str) -> float:
    """Return table 7's number; depths stand in the names."""
    return float(name.rpartition("-")[2] if quantity == "trunk_depth" else PAPER["tables"]["table 7"][name][quantity])


def rows() -> list[Row]:
    """Return every comparison."""
    return [*number_rows(), *map(claim_row, PAPER["claims"])]


def main() -> int:
    found = rows()
    print("| where | what | paper | ours | verdict |\n|---|---|---|---|---|", *found, sep="\n")
    return int(any(row.verdict is Verdict.DIFFERS for row in found))


if __name__ == "__main__":
    sys.exit(main())
