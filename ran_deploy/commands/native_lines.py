"""What native libraries write to stderr by themselves, as one line at the end in place of many between ours.

libjpeg writes "Corrupt JPEG data: ..." for pixels that it makes up for, without a file name, and OpenCV has no setting
against it. Only the descriptor can be turned, which belongs to the whole process. So Python's stderr first gets a
descriptor of its own, before there is any thread; then descriptor 2 carries nothing but such lines, and turning it
takes nothing from ours, whatever threads run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from ran_deploy.commands.printing import printable

__all__ = ["move_python_stderr", "sum_up_native_lines"]

STDERR = 2


def move_python_stderr() -> None:
    """Give Python's stderr a descriptor of its own; what it writes goes where it went before."""
    if _descriptor() == STDERR:
        encoding, errors = sys.stderr.encoding, sys.stderr.errors
        sys.stderr = os.fdopen(os.dup(STDERR), "w", buffering=1, encoding=encoding, errors=errors)


@contextlib.contextmanager
def sum_up_native_lines() -> Iterator[None]:
    """Hold back what is written to descriptor 2, then say how many lines there were and how they begin.

    Does nothing with --verbose, or where Python writes there too. A process that crashes in here takes them with it.
    """
    if _descriptor() in (None, STDERR) or logging.getLogger().isEnabledFor(logging.DEBUG):
        yield
        return
    with _temporary_file() as held:
        elsewhere = os.dup(STDERR)
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        finally:
            os.dup2(elsewhere, STDERR)
            os.close(elsewhere)
            _say(held)


def _temporary_file() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # nowhere to keep the lines: they are only kept from the terminal
        return Path(os.devnull).open("w+b")


def _descriptor() -> int | None:
    """Return the descriptor that Python's stderr writes to, None if it has none."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # no stderr, a stand-in for it, a closed one
        return None


def _say(held: IO[bytes]) -> None:
    held.seek(0)
    first, count = "", 0
    for line in held:
        first, count = first or line.decode("utf-8", "replace").strip(), count + 1
    if count:
        lines = "1 line" if count == 1 else f"{count} lines, the first"
        click.echo(f"warning: image decoders or the engine wrote {lines}: {printable(first)} (-v shows each)", err=True)
