"""The published schema of a report's JSON, made from the dataclasses: JSON Schema, draft 2020-12."""

from __future__ import annotations

from typing import Any

import msgspec

from ran_deploy.report.field_descriptions import DESCRIPTIONS
from ran_deploy.report.schema import SCHEMA_VERSION, ValidationReport

__all__ = ["report_schema", "schema_to_json"]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
ID = f"urn:ran-deploy:validation-report:{SCHEMA_VERSION}"


def report_schema() -> dict[str, Any]:
    """Return the schema; every field has a description, classes have their docstring's first sentence."""
    (root,), components = msgspec.json.schema_components([ValidationReport], ref_template="#/$defs/{name}")
    definitions = {name: _described(name, content) for name, content in sorted(components.items())}
    return {
        "$schema": DRAFT,
        "$id": ID,
        "title": "ran-deploy validation report",
        "description": f"What ran-validate --report FILE.json and --json write; schema_version {SCHEMA_VERSION}.",
        **root,
        "$defs": definitions,
    }


def schema_to_json() -> bytes:
    """Return the schema as indented JSON: what docs/report.schema.json holds."""
    return msgspec.json.format(msgspec.json.encode(report_schema()), indent=2) + b"\n"


def _described(name: str, component: dict[str, Any]) -> dict[str, Any]:
    """Return one definition with its fields described. Raises: KeyError for a field that nobody has described."""
    if "properties" not in component:
        return component
    fields = {field: _field(name, field, content) for field, content in component["properties"].items()}
    return {**component, "description": _first_sentence(component.get("description", "")), "properties": fields}


def _field(name: str, field: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"description": DESCRIPTIONS[name][field], **content}


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.split("\n\n")[0].replace("`", "").split())
    return paragraph.partition(". ")[0].rstrip(".") + "."
