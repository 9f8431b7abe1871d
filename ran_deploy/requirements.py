"""What an engine requires of the machine that loads it, part by part: a very value, or a range of versions.

A fingerprint is a mapping of parts to values. A range is written as `>=8.0` or `>=10.3.0,<11`: a reader that compares
values alone finds that no machine is equal to it, and refuses what it cannot judge.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping

__all__ = ["at_least", "is_range", "meets", "misfits", "same_major_from"]

_BOUND = re.compile(r"(?P<relation>>=|<)(?P<version>\d+(\.\d+)*)")
_VERSION = re.compile(r"\d+(\.\d+)*")
_RELATIONS = {">=": operator.ge, "<": operator.lt}


def at_least(version: str) -> str:
    """Return the range of `version` and everything after it."""
    return f">={version}"


def same_major_from(version: str) -> str:
    """Return the range from `version` to the end of its major version."""
    return f">={version},<{int(version.partition('.')[0]) + 1}"


def is_range(required: str) -> bool:
    """Return whether more than one value meets `required`."""
    return len(_bounds(required)) == required.count(",") + 1


def meets(found: str | None, required: str) -> bool:
    """Return whether `found`, None where nothing is known, is the value or within the range `required`."""
    if not is_range(required):
        return found == required
    if found is None or not _VERSION.fullmatch(found):
        return False
    bounds = _bounds(required)
    return all(_RELATIONS[bound["relation"]](_numbers(found), _numbers(bound["version"])) for bound in bounds)


def misfits(built: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return one sentence for each part of `built` that `here` does not meet; none means that the engine fits."""
    return [
        f"{part} is {here.get(part, 'unknown')} here; the engine was built for {required}"
        for part, required in built.items()
        if not meets(here.get(part), required)
    ]


def _bounds(required: str) -> list[re.Match[str]]:
    return [bound for part in required.split(",") if (bound := _BOUND.fullmatch(part)) is not None]


def _numbers(version: str) -> tuple[int, ...]:
    """Return the parts of a version; trailing zeros say nothing, as 11 is 11.0."""
    numbers = [int(part) for part in version.split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
