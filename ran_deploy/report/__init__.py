"""The validation report: its schema, as JSON and as one self-contained HTML page."""

from ran_deploy.report.building import engine_report, validation_report
from ran_deploy.report.html import render_html, write_html
from ran_deploy.report.json import report_to_json, write_json
from ran_deploy.report.schema import (
    BundleSummary,
    EngineReport,
    Provenance,
    UnreadableImage,
    ValidationReport,
)

__all__ = [
    "BundleSummary",
    "EngineReport",
    "Provenance",
    "UnreadableImage",
    "ValidationReport",
    "engine_report",
    "render_html",
    "report_to_json",
    "validation_report",
    "write_html",
    "write_json",
]
