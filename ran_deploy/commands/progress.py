"""How far a long stage is: a counter where standard error is a terminal, nothing where it is a file."""

from __future__ import annotations

import sys
import time

import click

from ran_deploy.commands.printing import printable
from ran_deploy.counts import counted

__all__ = ["Counter"]

INTERVAL_S = 0.1
CLEAR_LINE = "\r\x1b[K"


class Counter:
    """Rewrites one line of standard error; `line` prints an ordinary line in its place."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty()
        self._due = 0.0
        self._dirty = False

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show how many images are done, and a few words on them."""
        shown = counted(done, "image") if total is None else f"{done:,} of {counted(total, 'image')}"
        self._show(f"{shown}: {note}" if note else shown)

    def count(self, done: int, what: str) -> None:
        """Show how many of something else, in the singular, are done."""
        self._show(counted(done, what))

    def share(self, done: float) -> None:
        """Show which share, 0..1, of something is done."""
        self._show(f"{done:.0%}")

    def _show(self, text: str) -> None:
        if not self._shown or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + INTERVAL_S
        self._dirty = True
        click.echo(f"{CLEAR_LINE}  {text}", nl=False, err=True)

    def line(self, text: str, *, err: bool = True) -> None:
        """Print a line of its own; names in it are a stranger's and steer nothing."""
        self.clear()
        click.echo(printable(text), err=err)

    def clear(self) -> None:
        """Remove the counter from the screen."""
        if self._dirty:
            click.echo(CLEAR_LINE, nl=False, err=True)
            self._dirty = False
