"""Outputs as one NumPy array, with the list that says which row is which image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ran_deploy.errors import OutputError
from ran_deploy.runtime.answers import Answers
from ran_deploy.runtime.pipeline import Result
from ran_deploy.runtime.sinks import Sink, json_row

__all__ = ["NpySink", "sources_path"]

HEADER_BYTES = 128  # as numpy.save writes it for two dimensions, padded: the number of rows is known only at the end


class NpySink(Sink):
    """A .npy file, float32 (N, size): one row an image in the order of the inputs, of NaN where it failed.

    Beside it stands `sources_path`, whose line i is {"source": ..., "error": ...} of row i: a broken image moves no
    row, and rows can be told without sorting files the way the command does.
    """

    BINARY = True

    def __init__(self, path: Path, answers: Answers) -> None:
        if path.exists() and not path.is_file():
            raise OutputError(f"Cannot write an array to {path}, which is no file. Write .jsonl or .csv there.")
        super().__init__(path, answers)
        try:
            self.sources = _SourcesSink(sources_path(self.path), answers)
        except OutputError:
            super().discard()
            raise
        self.rows = 0
        self.failed_row = np.full(answers.size, np.nan, np.float32)
        self.stream.write(bytes(HEADER_BYTES))

    def write_rows(self, result: Result) -> None:
        row = self.failed_row if result.logits is None else self.answers.vector(result.logits)
        self.stream.write(row.astype("<f4").tobytes())
        self.sources.write(result)
        self.rows += 1

    def finish(self) -> None:
        self.stream.seek(0)
        self.stream.write(_header(self.rows, self.answers.size))
        self.sources.close()

    def discard(self) -> None:
        super().discard()
        self.sources.discard()


class _SourcesSink(Sink):
    """One JSON object a line and a row: its source, and why it is empty."""

    def write_rows(self, result: Result) -> None:
        self.stream.write(json_row(result) + "\n")


def sources_path(array: Path) -> Path:
    """Return where the list of an array's rows stands: vectors.sources.jsonl beside vectors.npy."""
    return array.with_suffix(".sources.jsonl")


def _header(rows: int, size: int) -> bytes:
    """Return the first bytes of a .npy file, version 1.0. Source: numpy.lib.format."""
    prefix = b"\x93NUMPY\x01\x00" + (HEADER_BYTES - 10).to_bytes(2, "little")
    described = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {size}), }}"
    return prefix + described.encode("ascii").ljust(HEADER_BYTES - 11) + b"\n"
