"""Files of results, in their place only when they are whole."""

from __future__ import annotations

import contextlib
import csv
import os
from pathlib import Path
from typing import IO, Any

import msgspec

from ran_deploy.errors import OutputError
from ran_deploy.runtime.answers import Answers
from ran_deploy.runtime.pipeline import Result
from ran_deploy.text import text_cell, unicode_text

__all__ = ["CsvSink", "JsonlSink", "Sink", "json_row"]


class Sink:
    """Takes results one by one, into a file beside `path` that is moved there on closing.

    What stands at `path` is replaced then and not before; a sink left by an exception leaves nothing behind. What is
    no regular file, a device or a pipe, is written to directly.
    Raises: OutputError from the start if `path` cannot be written, later if the disk is full.
    """

    BINARY = False

    def __init__(self, path: Path, answers: Answers) -> None:
        self.answers = answers
        self.path = path.resolve()  # a link stays one: what it points to is replaced
        self.direct = self.path.exists() and not self.path.is_file()
        self.written = self.path if self.direct else self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        if self.path.is_file() and not os.access(self.path, os.W_OK):
            raise OutputError(f"Cannot write {path}: the file is read-only. Choose another place.")
        text: dict[str, Any] = {} if self.BINARY else {"encoding": "utf-8", "newline": ""}
        try:
            self.stream: IO[Any] = self.written.open("wb" if self.BINARY else "w", **text)
        except OSError as exc:
            raise OutputError(f"Cannot write {path} ({exc.strerror}). Choose another place.") from exc

    def write(self, result: Result) -> None:
        """Add one result."""
        try:
            self.write_rows(result)
        except OSError as exc:
            raise OutputError(f"Cannot write {self.path} any further ({exc.strerror}).") from exc

    def write_rows(self, result: Result) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Write what can be known only at the end."""

    def close(self) -> None:
        """Put the file in its place; a second call does nothing."""
        if self.stream.closed:
            return
        try:
            self.finish()
            self.stream.close()
            if self.written != self.path:
                self.written.replace(self.path)
        except OSError as exc:
            self.discard()
            raise OutputError(f"Cannot finish {self.path} ({exc.strerror}).") from exc

    def discard(self) -> None:
        """Leave no file; what stood at the path before stays."""
        with contextlib.suppress(OSError):  # what cannot be flushed is thrown away anyway
            self.stream.close()
        if self.written != self.path:
            self.written.unlink(missing_ok=True)

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class JsonlSink(Sink):
    """One JSON object a line and an image, always with the same three keys.

    {"source": "a.jpg", "predictions": [{"index": 3, "label": "Dress", "probability": 0.9, "logit": 7}], "error": null}
    {"source": "a.jpg", "embedding": [0.25, -1.5], "error": null}
    """

    def write_rows(self, result: Result) -> None:
        self.stream.write(json_row(result, self.answers) + "\n")


class CsvSink(Sink):
    """The rows of each answer between source and error; an image that failed has one row, with the error alone."""

    def __init__(self, path: Path, answers: Answers) -> None:
        super().__init__(path, answers)
        self.rows = csv.writer(self.stream)
        self.rows.writerow(["source", *answers.columns, "error"])

    def write_rows(self, result: Result) -> None:
        source = text_cell(result.name)
        if result.logits is None:
            self.rows.writerow([source, *[""] * len(self.answers.columns), text_cell(result.error or "")])
            return
        self.rows.writerows([source, *cells, ""] for cells in self.answers.cells(result.logits))


def json_row(result: Result, answers: Answers | None = None) -> str:
    """Return a result as one JSON object in one line, with what `answers` make of it where they are given."""
    error = None if result.error is None else unicode_text(result.error)
    fields = answers.fields(result.logits) if answers is not None else {}
    row = {"source": unicode_text(result.name), **fields, "error": error}
    return msgspec.json.encode(row).decode()  # NaN becomes null: JSON has none
