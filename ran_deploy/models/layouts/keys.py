"""Small questions about state-dict keys, theirs and ours, that several layouts ask."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["count", "matches", "stage_and_position"]


def count(keys: Iterable[str], pattern: str) -> int:
    """Return how many different values the groups of `pattern`, matched at the start of a key, take."""
    return len({match.groups() for match in matches(keys, pattern)})


def matches(keys: Iterable[str], pattern: str) -> list[re.Match[str]]:
    """Return the matches of `pattern` at the start of each key."""
    compiled = re.compile(pattern)
    return [match for key in keys if (match := compiled.match(key))]


def stage_and_position(rest: str) -> tuple[int, int, str]:
    """Split what follows `stages.` in a key of ours: the stage, the position in it, and the rest."""
    stage, position, rest = rest.split(".", 2)
    return int(stage), int(position), rest
