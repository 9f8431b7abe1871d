"""What is wrong with a choice of calibration images that their labels and digests can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ran_deploy.counts import counted

__all__ = ["selection_warnings"]

FEW = 32  # on the demo net 16 images left 0.0173 relative L2, 8 left 0.0202, where 64 to 512 left 0.0148
MANY_COPIES = 0.05
UNEVEN = 5  # times as many images of one class as of another: whole classes then hardly count


def selection_warnings(digests: Sequence[str], labels: Sequence[int | None], classes: int | None) -> tuple[str, ...]:
    """Return what a user should know: few images, copies, classes that are missing or rare.

    `digests` and `labels` are of the chosen images; `classes` is how many the network tells apart, None where it tells
    none. Nothing is said of classes where some labels are unknown, or images are too few to show each twice.
    """
    found = []
    if len(digests) < FEW:
        found.append(f"only {counted(len(digests), 'calibration image')}: give a few hundred typical ones")
    copies = len(digests) - len(set(digests))
    if copies > max(1, MANY_COPIES * len(digests)):
        found.append(
            f"{copies:,} of {counted(len(digests), 'calibration image')} are copies of others: remove them, or give "
            "more different ones"
        )
    if classes is not None and len(digests) >= 2 * classes and None not in labels:
        found += _class_warnings(Counter(labels), classes)
    return tuple(found)


def _class_warnings(counts: Counter[int | None], classes: int) -> list[str]:
    if len(counts) < classes:
        return [
            f"calibration images show {len(counts):,} of the network's {classes:,} classes: add images of the others, "
            "whose activations may reach further"
        ]
    most, fewest = max(counts.values()), min(counts.values())
    if most > UNEVEN * fewest:
        return [
            f"calibration images are unbalanced: {fewest:,} of one class, {most:,} of another; add images of the rare "
            "classes"
        ]
    return []
