"""Running a command as the process: error messages, exit statuses, signals. No heavy imports."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import click

from ran_deploy.commands.printing import printable
from ran_deploy.errors import RanDeployError

__all__ = ["INTERRUPTED", "on_signals", "run_command"]

INTERRUPTED = 130
UNUSABLE_PATH = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)  # to ask whether it is there already fails
EXTRAS = {  # what of setup.cfg's extras a command may need that other commands do without
    "export": ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "onnxruntime"),
    "report": ("jinja2", "matplotlib"),
}


def run_command(command: click.Command) -> None:
    """Run a command as the process: one line for each error a user can cause, never a traceback for it."""
    name = command.name or "ran-deploy"
    _prepare_stdout()
    interrupted = threading.Event()
    try:
        with _noted_interrupts(interrupted), command.make_context(name, sys.argv[1:]) as context:
            sys.exit(command.invoke(context) or 0)  # command.main would exit 1 on a broken pipe
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.ClickException as exc:
        message = " ".join(exc.format_message().split())  # click lists the choices below each other
        end = "" if message.endswith((".", "?")) else "."
        click.echo(f"{name}: {message}{end} See {name} --help.", err=True)
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end_interrupted(name)
    except RanDeployError as exc:
        if interrupted.is_set():  # code between, such as an import in PyTorch, made another error of it
            _end_interrupted(name)
        click.echo(f"{name}: {printable(str(exc))}", err=True)
        sys.exit(exc.exit_status)
    except (ModuleNotFoundError, MemoryError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno in (errno.EPIPE, errno.ENOSPC, errno.EBADF):
            _end_unwritable(name, exc)
        line = _line_about(command, exc)
        if line is None:
            raise
        click.echo(f"{name}: {line}", err=True)
        sys.exit(RanDeployError.exit_status)


def _line_about(command: click.Command, exc: Exception) -> str | None:
    """Return what to tell of an error of Python's own that a user can cause; None for any other."""
    if isinstance(exc, MemoryError):
        return _memory_line(command, exc)
    if isinstance(exc, ModuleNotFoundError):
        package = (exc.name or "").partition(".")[0]
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), None)
        return extra and f"this needs {package} ({exc}). Install it: pip install 'ran-deploy[{extra}]'."
    if isinstance(exc, FileNotFoundError) and str(exc.strerror).startswith("No usable temporary directory"):
        return f"{exc.strerror}: set TMPDIR to a folder that can be written to."
    if isinstance(exc, OSError) and exc.errno in UNUSABLE_PATH and exc.filename is not None:
        return f"cannot use {printable(str(exc.filename))} ({exc.strerror}): give another path."
    return None


def _memory_line(command: click.Command, exc: MemoryError) -> str:
    detail = f" ({printable(str(exc))})" if str(exc) else ""
    options = {name for parameter in command.params for name in parameter.opts}
    smaller = [name for name in ("--input-size", "--batch") if name in options]
    return f"not enough memory{detail}." + (f" Choose a smaller {' or '.join(smaller)}." if smaller else "")


def _end_unwritable(name: str, exc: OSError) -> NoReturn:
    # Python would complain once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if exc.errno == errno.EPIPE:  # the reader (head, less) has seen enough
        sys.exit(0)
    click.echo(f"{name}: cannot write any further ({exc.strerror}).", err=True)
    sys.exit(RanDeployError.exit_status)


def _prepare_stdout() -> None:
    """Make writing to a standard output that was closed (`>&-`) an error, where Python drops what is written.

    Otherwise the next file that is opened would be standard output to native libraries. What the encoding of standard
    output lacks, in a name say, is written as an escape, as on standard error.
    """
    if sys.stdout is None:
        unwritable = os.open(os.devnull, os.O_RDONLY)
        if unwritable != 1:
            os.dup2(unwritable, 1)
        sys.stdout = os.fdopen(1, "w")
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _noted_interrupts(seen: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set `seen` before they raise KeyboardInterrupt, which code between may swallow."""

    def note(number: int, frame: Any) -> None:
        seen.set()
        raise KeyboardInterrupt

    with on_signals(note):
        yield


@contextlib.contextmanager
def on_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Have `handler` called for SIGINT and SIGTERM within a with statement.

    SIGTERM is how timeout, service managers and containers stop a process: it, too, leaves nothing half-written.
    """
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _end_interrupted(name: str) -> NoReturn:
    click.echo(f"{name}: interrupted", err=True)
    sys.exit(INTERRUPTED)
