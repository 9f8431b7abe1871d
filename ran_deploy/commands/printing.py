"""What is printed: text that steers no terminal, and JSON."""

from __future__ import annotations

from typing import Any

import click

__all__ = ["printable", "write_json"]


def printable(text: str) -> str:
    """Return `text` with control characters as escapes: a file name must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_json(value: Any) -> None:
    """Print a dataclass or plain value as one JSON document on standard output."""
    from ran_deploy.text import json_document

    click.echo(json_document(value))  # bytes: JSON is UTF-8, whatever the terminal's encoding
