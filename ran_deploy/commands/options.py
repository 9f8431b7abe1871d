"""Options that several commands have, and types of options."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ran_deploy.backends import BACKENDS

__all__ = [
    "Batch",
    "Size",
    "Triple",
    "backend_option",
    "cache_dir_option",
    "device_option",
    "require_signature_option",
    "threads_option",
    "triton_option",
    "verbose_option",
    "version_option",
]

LARGEST_SIDE = 8192  # beyond any network and device: a slip of the keyboard


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
