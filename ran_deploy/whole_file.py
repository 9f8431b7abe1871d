"""Putting finished files in their place."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ran_deploy.errors import OutputError

__all__ = ["write_whole"]


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
