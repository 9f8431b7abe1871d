"""Names and messages as files hold them: always Unicode, and never a formula."""

from __future__ import annotations

__all__ = ["text_cell", "unicode_text"]


def unicode_text(text: str) -> str:
    """Return `text` with what is no Unicode, as in file names of other encodings, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def text_cell(text: str) -> str:
    """Return `text` for CSV: what a spreadsheet would take for a formula begins with an apostrophe."""
    return unicode_text("'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text)
