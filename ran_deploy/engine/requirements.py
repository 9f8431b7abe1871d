"""What an engine requires of the machine that loads it, part by part: a very value, or a range of versions.

A fingerprint is a mapping of parts to values. A range is written as `>=8.0` or `>=10.3.0,<11`: a reader that compares
values alone finds that no machine is equal to it, and refuses what it cannot judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = [
    "ACCELERATOR",
    "DLA",
    "at_least",
    "is_range",
    "meets",
    "meets_so_far",
    "misfits",
    "same_major_from",
]

# The part of a fingerprint that says what computes beside the GPU. Who does not name it has none, on either side: a
# device that is asked for its DLA does not take an engine that leaves it idle.
ACCELERATOR, DLA, NO_ACCELERATOR = "accelerator", "DLA", "none"

_BOUND = re.compile(r"(?P<relation>>=|<)(?P<version>\d+(\.\d+)*)")
_VERSION = re.compile(r"\d+(\.\d+)*")


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
    unwritten = (0,) * len(_parts(required))  # 11 is 11.0, and no further part decides
    return meets_so_far(_parts(found) + unwritten, required) is True


def meets_so_far(known: tuple[int, ...], required: str) -> bool | None:
    """Return whether a version of which the first parts are known meets `required`; None where further parts decide."""
    if not is_range(required):
        exact = _parts(required)
        return None if known == exact[: len(known)] and len(known) < len(exact) else known == exact
    verdicts = {_at_bound(known, bound["relation"], _parts(bound["version"])) for bound in _bounds(required)}
    if False in verdicts:
        return False
    return None if None in verdicts else True


def misfits(built: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return one sentence for each part of `built` that `here` does not meet; none means that the engine fits."""
    built, here = ({**parts, ACCELERATOR: parts.get(ACCELERATOR, NO_ACCELERATOR)} for parts in (built, here))
    return [
        f"{part} is {here.get(part, 'unknown')} here; the engine was built for {required}"
        for part, required in built.items()
        if not meets(here.get(part), required)
    ]


def _bounds(required: str) -> list[re.Match[str]]:
    return [bound for part in required.split(",") if (bound := _BOUND.fullmatch(part)) is not None]


def _at_bound(known: tuple[int, ...], relation: str, bound: tuple[int, ...]) -> bool | None:
    start, rest = bound[: len(known)], bound[len(known) :]
    start += (0,) * (len(known) - len(start))
    if known != start:
        return (known > start) == (relation == ">=")
    return None if any(rest) else relation == ">="


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
