"""Finding where something changes: the root of a falling function, the fewest of something that suffice."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["MOST", "fewest", "root"]

MOST = 10**9  # images or pairs: more is never gathered, so the answer is then "no number of them"


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Return where a falling function crosses zero in [low, high], by bisection; the nearer end if it does not."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(60):  # (high - low) / 2**60 is below the spacing of float64 around any bound of use
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def fewest(suffices: Callable[[int], bool], start: int) -> int | None:
    """Return the smallest number that suffices, where every larger one does too; None if MOST do not.

    `start`, at least 1, is where to look first.
    """
    enough = start
    while not suffices(enough):
        enough *= 2
        if enough > MOST:
            return None
    few = 0
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if suffices(middle) else (middle, enough)
    return enough
