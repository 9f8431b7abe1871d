"""Names that are no Unicode, in JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ran_deploy.text import json_document, unicode_text


@dataclass(frozen=True)
class Named:
    name: str
    parts: tuple[str, ...]
    counts: dict[str, int]


def test_a_document_without_foreign_names_is_what_json_says():
    value = Named(name="Über 猫", parts=("a",), counts={"b": 1})
    assert json.loads(json_document(value)) == {"name": "Über 猫", "parts": ["a"], "counts": {"b": 1}}


def test_names_of_other_encodings_are_escaped_wherever_they_stand():
    name = b"caf\xe9".decode(errors="surrogateescape")  # as Python gives the name of a file in Latin-1
    assert unicode_text(name) == r"caf\udce9"
    value = Named(name=name, parts=(name, "ü"), counts={name: 2})
    expected = {"name": r"caf\udce9", "parts": [r"caf\udce9", "ü"], "counts": {r"caf\udce9": 2}}
    assert json.loads(json_document(value).decode("utf-8")) == expected
