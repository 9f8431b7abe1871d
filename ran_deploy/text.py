"""Names and messages as files hold them: always Unicode, and never a formula."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["json_document", "text_cell", "unicode_text"]


def unicode_text(text: str) -> str:
    """Return `text` with what is no Unicode, as in file names of other encodings, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def text_cell(text: str) -> str:
    """Return `text` for CSV: what a spreadsheet would take for a formula begins with an apostrophe."""
    return unicode_text("'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text)


def json_document(value: Any) -> bytes:
    """Return `value`, a dataclass or plain, as indented JSON; its strings as `unicode_text` has them."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_all_unicode(msgspec.to_builtins(value)))
    return msgspec.json.format(encoded, indent=2)


def _all_unicode(value: Any) -> Any:
    if isinstance(value, str):
        return unicode_text(value)
    if isinstance(value, dict):
        return {unicode_text(key): _all_unicode(item) for key, item in value.items()}
    return list(map(_all_unicode, value)) if isinstance(value, list | tuple) else value
