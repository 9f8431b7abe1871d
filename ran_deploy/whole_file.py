"""Putting finished files and folders in their place."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ran_deploy.errors import OutputError

__all__ = ["write_whole", "write_whole_folder"]


def write_whole(path: Path, data: bytes) -> None:
    """Write a sibling of `path` and rename it: `path` is whole, or what it was before. Raises: OutputError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):  # there is none where it could not be opened
            partial.unlink()
        raise OutputError(f"Cannot write {path} ({exc.strerror}). Choose another place.") from exc


def write_whole_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a sibling of the new `folder` and rename it: `folder` is whole, or not there. Raises: OutputError."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            (partial / name).write_bytes(data)
        partial.rename(folder)
    except OSError as exc:
        raise OutputError(f"Cannot write {folder} ({exc.strerror or exc}). Choose another place.") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
