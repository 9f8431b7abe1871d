"""What int8_accuracy.py measured: rows in a file that each is added to, and Markdown made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import numpy as np
from peers.verdicts import Verdict

OURS = "ran-deploy"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One graph of one checkpoint on one evaluator. `key` stands for everything that the figures depend on.

    `versions` are the peer's packages, `tools` those that evaluated its graph. `problem` says why there are no figures.
    """

    key: str
    checkpoint: str
    variant: str
    evaluator: str
    versions: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    images: int = 0
    fp32_top1: float = 0.0
    top1: float = 0.0
    drop_pp: float = 0.0
    drop_ci95_pp: tuple[float, float] = (0.0, 0.0)
    agreement: float = 0.0
    sqnr_db: float | None = None
    relative_l2: float | None = None
    graph_bytes: int = 0
    tensorrt_rtx: str = ""
    graph: str = ""
    logits: str = ""


@dataclass(frozen=True, kw_only=True)
class LatencyRow:
    """Median milliseconds of one graph for one batch, all graphs of the evaluator interleaved; `ratio` is to ours."""

    key: str
    checkpoint: str
    variant: str
    evaluator: str
    batch: int
    rounds: int
    median_ms: float
    ratio: float
    noisy: bool


Kind = TypeVar("Kind", Row, LatencyRow)


class Store(Generic[Kind]):
    """Rows in a JSON lines file: the last of each key counts, and a line cut short by a kill is passed over."""

    def __init__(self, path: Path, kind: type[Kind]) -> None:
        self.path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._rows: dict[str, Kind] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                row = self._decoder.decode(line)
            except msgspec.DecodeError:
                continue
            self._rows[row.key] = row

    def get(self, key: str) -> Kind | None:
        """Return the row of this key, None if there is none."""
        return self._rows.get(key)

    def add(self, row: Kind) -> None:
        """Add one line to the file."""
        self._rows[row.key] = row
        whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"\n", b"")
        with self.path.open("ab") as stream:
            stream.write((b"" if whole else b"\n") + msgspec.json.encode(row) + b"\n")


def table(rows: Iterable[Row], latencies: Iterable[LatencyRow]) -> str:
    """Return the rows as Markdown, those of one evaluator together, as only they compare like with like."""
    rows, latencies = list(rows), list(latencies)
    batches = sorted({found.batch for found in latencies})
    times = "".join(f" time, batch {batch} |" for batch in batches)
    lines = [
        "| evaluator | quantizer | top-1 | drop, 95 % interval | agreement | SQNR | relative L2 | size | "
        f"TensorRT-RTX |{times}",
        "|---|---|---|---|---|---|---|---|---|" + "---|" * len(batches),
    ]
    by_place = {(found.variant, found.evaluator, found.batch): found for found in latencies}
    notes: list[str] = []
    for row in sorted(rows, key=lambda row: row.evaluator):
        cells = [row.evaluator, row.variant, *([row.problem] + [""] * 6 if row.problem else figures(row, notes))]
        cells += [time_of(by_place.get((row.variant, row.evaluator, batch))) for batch in batches]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", *(f"[{number}] {note}" for number, note in enumerate(notes, 1))]).rstrip()


def figures(row: Row, notes: list[str]) -> list[str]:
    """Return the cells of what was measured; why TensorRT-RTX refuses the graph goes to `notes`."""
    low, high = row.drop_ci95_pp
    return [
        f"{row.top1:.2f} %",
        f"{row.drop_pp:+.2f}, {low:+.2f} to {high:+.2f}",
        f"{row.agreement:.2f} %",
        "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f} dB",
        "-" if row.relative_l2 is None else f"{row.relative_l2:.4f}",
        f"{row.graph_bytes / 2**20:.1f} MiB",
        with_note(row.tensorrt_rtx, notes),
    ]


def with_note(verdict: str, notes: list[str]) -> str:
    """Return the first word of 'refused: reason' and the number of its reason among `notes`, where it is added."""
    word, _, reason = verdict.partition(": ")
    if not reason:
        return word
    if reason not in notes:
        notes.append(reason)
    return f"{word} [{notes.index(reason) + 1}]"


def time_of(found: LatencyRow | None) -> str:
    return "-" if found is None else f"{found.ratio:.2f}{' (busy)' if found.noisy else ''}"


def means(rows: Iterable[Row]) -> str:
    """Return, where there are several checkpoints, the means over them as Markdown."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.problem:
            groups.setdefault((row.evaluator, row.variant), []).append(row)
    lines = ["| evaluator | quantizer | checkpoints | drop | agreement | SQNR |", "|---|---|---|---|---|---|"]
    for (evaluator, variant), found in sorted(groups.items(), key=lambda item: item[0][0]):
        sqnr = np.mean([row.sqnr_db for row in found if row.sqnr_db is not None])
        lines.append(
            f"| {evaluator} | {variant} | {len(found)} | {np.mean([row.drop_pp for row in found]):+.3f} | "
            f"{np.mean([row.agreement for row in found]):.2f} % | {sqnr:.1f} dB |"
        )
    return "\n".join(lines)


def verdict_line(variant: str, evaluator: str, verdict: Verdict) -> str:
    """Say in one line what the tests found of a peer against ours on the same evaluator."""
    agreed, sqnr = verdict.agreement, verdict.sqnr
    conclusion = {True: "no better", False: "BETTER, and no slower", None: "BETTER, latency not measured"}
    time = ", ".join(f"{ratio:.2f}" for ratio in verdict.latency_ratios)
    return (
        f"- {variant} ({evaluator}): {conclusion[verdict.claim_holds]}. Agreement {agreed.peer_is}: on {agreed.peer} "
        f"images it alone agrees with FP32, on {agreed.ours} ours alone, p {agreed.p:.2g}. SQNR {sqnr.peer_is}: "
        f"{sqnr.db:+.2f} dB, {sqnr.low:+.2f} to {sqnr.high:+.2f}.{f' Time over ours {time}.' if time else ''}"
    )
