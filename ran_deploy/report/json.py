"""The report as JSON, and putting finished files in their place."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from ran_deploy.errors import OutputError
from ran_deploy.report.schema import ValidationReport

__all__ = ["report_to_json", "write_json", "write_whole"]


def report_to_json(report: ValidationReport) -> bytes:
    """Return the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def write_json(report: ValidationReport, path: Path) -> None:
    """Write the report to `path`. Raises: OutputError."""
    write_whole(path, report_to_json(report))


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
