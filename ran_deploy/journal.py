"""What a long search has measured so far, kept on disk: after a kill it goes on where it was.

One JSON line a measurement. Several processes may write one journal, and a line torn by a kill is passed over.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
from filelock import FileLock

__all__ = ["Journal"]

logger = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    key: str
    values: list[float]


class Journal:
    """Measurements by key, each a few numbers; `path` should name all that they depend on (see `bundle.sha256_of`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._known: dict[str, list[float]] = {}
        self._read_to = 0
        self._writable = True
        self._refresh()

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, key: str, measure: Callable[[], Sequence[float]]) -> list[float]:
        """Return the values on record for `key`, by whichever process; without any, measure and record them.

        The first record of a key counts. A journal that cannot be written is warned of once: nothing is resumed then.
        """
        if key not in self._known:
            self._refresh()
        if key not in self._known:
            values = [float(value) for value in measure()]
            self._append(_Line(key=key, values=values))
            self._known.setdefault(key, values)
        return self._known[key]

    def _append(self, line: _Line) -> None:
        if not self._writable:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, self._path.open("ab+") as file:
                start = b"" if _ends_whole(file) else b"\n"
                file.write(start + msgspec.json.encode(line) + b"\n")
        except OSError as exc:
            self._writable = False
            logger.warning(
                "the search cannot be resumed if it is interrupted: cannot write %s (%s)",
                self._path,
                exc.strerror or exc,
            )

    def _refresh(self) -> None:
        """Read the complete lines that were added since the last time."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                added = file.read()
        except OSError:
            return
        complete = added[: added.rfind(b"\n") + 1]
        self._read_to += len(complete)
        for text in complete.splitlines():
            try:
                line = msgspec.json.decode(text, type=_Line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue  # torn by a kill: it is measured again
            self._known.setdefault(line.key, line.values)


def _ends_whole(file: BinaryIO) -> bool:
    """Return whether the file is empty or its last line is complete."""
    if not file.seek(0, os.SEEK_END):
        return True
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
