"""What the commands share: error messages, exit statuses, option types. No heavy imports."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import click

from ran_deploy.backends import BACKENDS
from ran_deploy.errors import RanDeployError

__all__ = [
    "INTERRUPTED",
    "Batch",
    "Size",
    "Triple",
    "backend_option",
    "cache_dir_option",
    "device_option",
    "printable",
    "require_signature_option",
    "run_command",
    "threads_option",
    "triton_option",
    "verbose_option",
    "version_option",
    "write_json",
]

INTERRUPTED = 130
UNUSABLE_PATH = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)  # to ask whether it is there already fails
EXTRAS = {  # what of setup.cfg's extras a command may need that other commands do without
    "export": ("torch", "onnx", "onnx_ir", "onnxscript", "safetensors", "onnxruntime"),
    "report": ("jinja2", "matplotlib"),
}
LARGEST_SIDE = 8192  # beyond any network and device: a slip of the keyboard


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
        click.echo(f"{name}: {message.rstrip('.')}. See {name} --help.", err=True)
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
    """Let SIGINT and SIGTERM set `seen` before they raise KeyboardInterrupt, which code between may swallow.

    SIGTERM is how timeout, service managers and containers stop a process: it, too, leaves nothing half-written.
    """

    def on_signal(number: int, frame: Any) -> None:
        seen.set()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_interrupted(name: str) -> NoReturn:
    click.echo(f"{name}: interrupted", err=True)
    sys.exit(INTERRUPTED)


class Size(click.ParamType):
    """224 or 224x320: (height, width)."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no size; expected a side such as 224, or a size such as 224x320", param, ctx)
        if max(map(int, parts)) > LARGEST_SIDE:
            self.fail(f"{value!r} is too large; expected sides of at most {LARGEST_SIDE}", param, ctx)
        return int(parts[0]), int(parts[-1])


class Batch(click.ParamType):
    """8 or 1:8:32: the batch sizes an engine is built for."""

    name = "MIN:OPT:MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        parts = str(value).split(":")
        if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is no batch profile; expected MIN:OPT:MAX such as 1:8:32", param, ctx)
        sizes = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
        if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            self.fail(f"{value!r} is out of order; expected 1 <= MIN <= OPT <= MAX", param, ctx)
        from ran_deploy.manifest import LARGEST_BATCH

        if sizes[2] > LARGEST_BATCH:
            self.fail(f"{value!r} is too large; expected at most {LARGEST_BATCH} images", param, ctx)
        return sizes[0], sizes[1], sizes[2]


class Triple(click.ParamType):
    """0.485,0.456,0.406: one number for each channel, or one for all."""

    name = "R,G,B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 3):
            self.fail(f"{value!r} is not three numbers; expected such as 0.485,0.456,0.406", param, ctx)
        return tuple(numbers * (3 if len(numbers) == 1 else 1))


def backend_option(*, extra: tuple[str, ...] = (), **settings: Any) -> Callable[[Any], Any]:
    """Return the option --backend, the one word for where an engine runs."""
    return click.option("--backend", type=click.Choice([*extra, *BACKENDS]), **settings)


def cache_dir_option() -> Callable[[Any], Any]:
    """Return the option --cache-dir."""
    return click.option(
        "--cache-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where engines made on this device are kept  [default: $XDG_CACHE_HOME/ran-deploy]",
    )


def device_option() -> Callable[[Any], Any]:
    """Return the option --device."""
    return click.option(
        "--device",
        metavar="cuda:N|dla:N",
        help="TensorRT: which GPU, or which DLA core of a Jetson.  [default: cuda:0]",
    )


def threads_option() -> Callable[[Any], Any]:
    """Return the option --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="CPU threads of the engine; 0 is all.",
    )


def triton_option() -> Callable[[Any], Any]:
    """Return the option --triton."""
    return click.option(
        "--triton",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="REPOSITORY",
        help="Also add the engine, as a new version, to this Triton model repository.",
    )


def require_signature_option() -> Callable[[Any], Any]:
    """Return the option --require-signature."""
    return click.option(
        "--require-signature",
        type=click.Path(path_type=Path),
        metavar="PUBLIC.pem",
        help="Refuse the bundle unless the owner of this Ed25519 key signed it.",
    )


def _set_verbosity(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    del ctx, param
    level = logging.DEBUG if value else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s" if value else "warning: %(message)s")
    return value


def verbose_option() -> Callable[[Any], Any]:
    """Return the option --verbose; it sets up logging, which without it shows warnings only."""
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbosity, help="Log every stage."
    )


def version_option() -> Callable[[Any], Any]:
    """Return the option --version."""
    return click.version_option(package_name="ran-deploy", prog_name="ran-deploy", message="%(prog)s %(version)s")


def printable(text: str) -> str:
    """Return `text` with control characters as escapes: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_json(value: Any) -> None:
    """Print a dataclass or plain value as one JSON document on standard output."""
    from ran_deploy.text import json_document

    click.echo(json_document(value))  # bytes: JSON is UTF-8, whatever the terminal's encoding
