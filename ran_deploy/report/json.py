"""The report as JSON."""

from __future__ import annotations

from pathlib import Path

from ran_deploy.report.schema import ValidationReport
from ran_deploy.text import json_document
from ran_deploy.whole_file import write_whole

__all__ = ["report_to_json", "write_json"]


def report_to_json(report: ValidationReport) -> bytes:
    """Return the report as indented JSON."""
    return json_document(report) + b"\n"


def write_json(report: ValidationReport, path: Path) -> None:
    """Write the report to `path`. Raises: OutputError."""
    write_whole(path, report_to_json(report))
