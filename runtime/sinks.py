"""Files of results, in their place only when they are whole."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import msgspec

from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.runtime.pipeline import Result
from ran_deploy.runtime.postprocess import Prediction

__all__ = ["CsvSink", "JsonlSink", "Sink", "json_row", "open_sink"]


class Sink:
    """Takes results one by one, into a file beside `path` that is moved there on closing.

    What stands at `path` is replaced then and not before; a sink left by an exception leaves nothing behind. What is
    no regular file, a device or a pipe, is written to directly.
    Raises: OutputError from the start if `path` cannot be written, later if the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()  # a link stays one: what it points to is replaced
        direct = self.path.exists() and not self.path.is_file()
        self.written = self.path if direct else self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        if self.path.is_file() and not os.access(self.path, os.W_OK):
            raise OutputError(f"Cannot write {path}: the file is read-only. Choose another place.")
        try:
            self.stream: TextIO = self.written.open("w", encoding="utf-8", newline="")
        except OSError as exc:
            raise OutputError(f"Cannot write {path} ({exc.strerror}). Choose another place.") from exc

    def write(self, result: Result, predictions: Sequence[Prediction]) -> None:
        """Add one result. `predictions` is empty where it has an error."""
        try:
            self.write_rows(result, predictions)
        except OSError as exc:
            raise OutputError(f"Cannot write {self.path} any further ({exc.strerror}).") from exc

    def write_rows(self, result: Result, predictions: Sequence[Prediction]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Put the file in its place; a second call does nothing."""
        if self.stream.closed:
            return
        try:
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
    """

    def write_rows(self, result: Result, predictions: Sequence[Prediction]) -> None:
        self.stream.write(json_row(result, predictions) + "\n")


class CsvSink(Sink):
    """One row a prediction, rank 1 the likeliest; an image that failed has one row, with the error alone.

    Text that a spreadsheet would take for a formula begins with an apostrophe.
    """

    COLUMNS = ("source", "rank", "index", "label", "probability", "logit", "error")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows = csv.writer(self.stream)
        self.rows.writerow(self.COLUMNS)

    def write_rows(self, result: Result, predictions: Sequence[Prediction]) -> None:
        source = _cell(result.name)
        if result.error is not None:
            self.rows.writerow([source, "", "", "", "", "", _cell(result.error)])
        for rank, best in enumerate(predictions, 1):
            label = _cell(best.label or "")
            self.rows.writerow([source, rank, best.index, label, f"{best.probability:.6g}", f"{best.logit:.6g}", ""])


def json_row(result: Result, predictions: Sequence[Prediction]) -> str:
    """Return a result as one JSON object in one line; `predictions` is empty where it has an error."""
    error = None if result.error is None else _unicode(result.error)
    row = {"source": _unicode(result.name), "predictions": list(predictions), "error": error}
    return msgspec.json.encode(row).decode()  # NaN becomes null: JSON has none


SINKS: dict[str, type[JsonlSink] | type[CsvSink]] = {".jsonl": JsonlSink, ".csv": CsvSink}


def open_sink(path: Path) -> Sink:
    """Return the sink for the suffix of `path`. Raises: ConfigError for another suffix; OutputError if unwritable."""
    suffix = path.suffix.lower()
    if suffix not in SINKS:
        raise ConfigError(f"{path}: results are written as {' or '.join(SINKS)}; found {suffix or 'no suffix'}.")
    return SINKS[suffix](path)


def _unicode(text: str) -> str:
    """Return `text` with what is no Unicode, as in file names of other encodings, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cell(text: str) -> str:
    return _unicode("'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text)
