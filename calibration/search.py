"""The fewest regions that must stay in float, found with as few measurements of accuracy as can be, and honestly.

Regions stand in a fixed order, made without the images that judge; the search only decides how many from its beginning
are kept. It looks at 0, 1, 4, 16, ... until a look passes, then gives regions back one by one while that passes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["confidences", "fewest_kept", "first_looks"]

GROWTH = 4


def fewest_kept(most: Callable[[], int], passes: Callable[[int, float], bool]) -> int | None:
    """Return how many regions must be kept, 0 to `most()`; None if not even so many pass.

    `passes(kept, confidence)` says whether the budget is shown to hold, at that two-sided confidence, with the first
    `kept` regions in float; no number is tried twice. `most` is asked only when nothing kept has failed.

    However many looks there are, a network beyond the budget gets through as seldom as in one look at 95 %:
    - going up, the look that comes next does not depend on what the images showed but on all before having failed. Each
      has a part of the 5 %, and the parts add up to it (Bonferroni);
    - going down, a look is taken only if all before it passed, and the first failure ends it, so each may have the
      whole part of the one it started from: a fixed sequence of tests. Source: Maurer, Hothorn and Lehmacher 1995, in
      Biometrie in der chemisch-pharmazeutischen Industrie 6, 3-18.
    """
    failed = -1
    for kept, confidence in zip(first_looks(most), confidences(), strict=False):
        if passes(kept, confidence):
            break
        failed = kept
    else:
        return None
    while kept - 1 > failed and passes(kept - 1, confidence):
        kept -= 1
    return kept


def first_looks(most: Callable[[], int]) -> Iterator[int]:
    """Yield the numbers of kept regions that are tried on the way up: 0, 1, 4, 16, ... and `most()`."""
    yield 0
    kept, last = 1, most()
    while kept < last:
        yield kept
        kept *= GROWTH
    if last:
        yield last


def confidences(confidence: float = 0.95) -> Iterator[float]:
    """Yield the confidence of each look on the way up: half of the risk is for the first, half of the rest next, ..."""
    risk = 1 - confidence
    while True:
        risk /= 2
        yield 1 - risk
