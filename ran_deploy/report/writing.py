"""Putting a report where the user asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ran_deploy.errors import ConfigError
from ran_deploy.report.attention import ShownAttention
from ran_deploy.report.html import require_html, write_html
from ran_deploy.report.json import write_json
from ran_deploy.report.schema import ValidationReport
from ran_deploy.whole_file import check_place

__all__ = ["check_report_path", "write_report"]

SUFFIXES = (".html", ".json")


def check_report_path(path: Path) -> None:
    """Check before the work starts that a report can be written.

    Raises: ConfigError for its suffix, OutputError, BackendUnavailableError if a package that HTML needs is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"Report {path}: found {path.suffix or 'no suffix'}; expected {' or '.join(SUFFIXES)}.")
    check_place(path)
    if path.suffix.lower() == ".html":
        require_html()


def write_report(
    report: ValidationReport,
    path: Path,
    images: Mapping[int, np.ndarray],
    attention: Mapping[str, Sequence[ShownAttention]] | None = None,
) -> None:
    """Write the report as its suffix says; HTML shows `images`, uint8 RGB by index in the data set, and `attention`.

    Raises: OutputError, BackendUnavailableError.
    """
    if path.suffix.lower() == ".json":
        write_json(report, path)
    else:
        write_html(report, path, images=images, attention=attention)
