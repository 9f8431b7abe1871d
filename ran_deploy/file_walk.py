"""The files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["files_below"]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield what is in `folder` at any depth, except folders and what is in hidden ones.

    Links are followed, and may lead in circles: each folder is walked once, and none that holds `folder`.
    Raises: OSError for a folder that cannot be read.
    """
    walked = {_identity(parent) for parent in folder.resolve().parents}
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        if (identity := _identity(Path(parent))) in walked:
            folders.clear()
            continue
        walked.add(identity)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error
