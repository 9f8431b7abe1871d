"""Putting finished files and folders in their place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.errors import OutputError

__all__ = ["check_place", "replace_file", "write_whole", "write_whole_folder"]


def check_place(path: Path) -> None:
    """Check before the work starts that a file can be written to `path` later. Raises: OutputError."""
    refuse_inside_bundle(path)
    probe = _partial(path)
    try:
        if path.is_dir():
            raise OutputError(f"Cannot write {path}: it is a folder. Name a file.")
        # Asking for permission is not enough: a read-only or virtual file system grants it and then refuses.
        probe.touch()
        probe.unlink()
    except OSError as exc:
        raise OutputError(f"Cannot write {path} ({exc.strerror}). Choose another place.") from exc


def replace_file(path: Path, data: bytes) -> None:
    """Write a sibling of `path` and rename it: `path` is whole, or what it was before. Raises: OSError."""
    partial = _partial(path)
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # there is none where it could not be opened
            partial.unlink()
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file that the user named, as `replace_file` does. Raises: OutputError."""
    try:
        replace_file(path, data)
    except OSError as exc:
        raise OutputError(f"Cannot write {path} ({exc.strerror}). Choose another place.") from exc


def write_whole_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a sibling of the new `folder` and rename it: `folder` is whole, or not there. Raises: OutputError."""
    partial = _partial(folder)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        partial.rename(folder)
    except OSError as exc:
        raise OutputError(f"Cannot write {folder} ({exc.strerror or exc}). Choose another place.") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
