"""Finding a data set's class names among a network's labels, however each spells them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

__all__ = ["numbers_by_name"]

WORDNET_ID = re.compile(r"\bn\d{8}(?!\d)")  # n01440764, alone or as in n02085620-Chihuahua


def numbers_by_name(found: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Return the position in `labels` of each name that is `found` there; other names are left out.

    A name counts as found if it is a label exactly, else without regard to case and separators, else if both hold the
    same WordNet id, else if it is one of a label's synonyms ('tench, Tinca tinca'). What fits two labels fits none.
    """
    indices = [(spellings, _index(labels, spellings)) for spellings in SPELLINGS]
    numbers = {}
    for name in found:
        for spellings, index in indices:
            fits = {index[spelling] for spelling in spellings(name) if spelling in index}
            if len(fits) == 1:
                numbers[name] = fits.pop()
                break
    return numbers


def _index(labels: Sequence[str], spellings: Callable[[str], list[str]]) -> dict[str, int]:
    """Return the position of the label with each spelling, without those that several labels share."""
    index: dict[str, int] = {}
    shared = set()
    for number, label in enumerate(labels):
        for spelling in spellings(label):
            if index.setdefault(spelling, number) != number:
                shared.add(spelling)
    return {spelling: number for spelling, number in index.items() if spelling not in shared}


def _simplified(name: str) -> list[str]:
    """Return letters and digits alone, in lower case; a number without leading zeros."""
    composed = unicodedata.normalize("NFKC", name)  # macOS decomposes the names of files
    letters = "".join(c for c in composed.casefold() if c.isalnum())
    if letters.isdecimal():
        letters = letters.lstrip("0") or "0"
    return [letters] if letters else []


def _synonyms(name: str) -> list[str]:
    return [spelling for part in WORDNET_ID.sub("", name).split(",") for spelling in _simplified(part)]


# From exact to loose.
SPELLINGS: tuple[Callable[[str], list[str]], ...] = (
    lambda name: [name],
    _simplified,
    WORDNET_ID.findall,
    _synonyms,
)
