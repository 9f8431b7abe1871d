"""Pairs of images that show the same or different: from a file, or made of a data set's classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ran_deploy.datasets.dataset import Dataset
from ran_deploy.errors import DatasetError

__all__ = ["ImagePairs", "pairs_of_classes", "read_pairs"]


@dataclass(frozen=True, kw_only=True)
class ImagePairs:
    """Which image is compared with which, and whether they show the same: indices (P,), (P,) and bool (P,).

    `origin` says where the pairs come from, for reports.
    """

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    origin: str

    def __len__(self) -> int:
        return len(self.same)

    @property
    def images(self) -> list[int]:
        """The images that occur, each once, in ascending order."""
        return sorted({*self.first.tolist(), *self.second.tolist()})

    def renumbered(self, places: Mapping[int, int]) -> ImagePairs:
        """Return the pairs of which `places` has both images, with its numbers for them."""
        kept = [
            (places[a], places[b], same)
            for a, b, same in zip(self.first.tolist(), self.second.tolist(), self.same.tolist(), strict=True)
            if a in places and b in places
        ]
        return _pairs(kept, self.origin)


def read_pairs(path: Path, dataset: Dataset) -> ImagePairs:
    """Return the pairs of a text file, in its order: a line has two images of `dataset` and 1 (same) or 0 (different).

    Images are called by their path below the data set; tabs, commas or spaces separate; # begins a comment line.
    Raises: DatasetError for a file that cannot be read, a line of another form, an image that is not there or is paired
    with itself, or a pair that is listed twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"no UTF-8 text: {exc.reason}"
        raise DatasetError(
            f"Cannot read --pairs {path} ({reason}); expected lines of two images and 1 (same) or 0 (different)."
        ) from exc
    numbers = {dataset.origin(index): index for index in range(len(dataset))}
    found, listed = [], dict[frozenset[int], int]()
    for line_number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            where = f"{path}, line {line_number}"
            first, second, same = _pair(line, where, numbers, dataset)
            if first == second:
                raise DatasetError(f"{where}: {dataset.origin(first)!r} is paired with itself. Remove the line.")
            # Counted twice it would narrow the interval that a budget is judged by; counted once, the report would
            # speak of other pairs than the file does, and of two answers to one question one would have to be chosen.
            earlier = listed.setdefault(frozenset((first, second)), line_number)
            if earlier != line_number:
                raise DatasetError(f"{where}: line {earlier} pairs the same two images. Remove one of them.")
            found.append((first, second, same))
    if not found:
        raise DatasetError(f"{path} holds no pairs; expected lines of two images and 1 (same) or 0 (different).")
    return _pairs(found, f"listed in {path.name}")


def pairs_of_classes(labels: Mapping[int, int], seed: int = 0) -> ImagePairs:
    """Return as many pairs of one class as of two different ones, taking turns, the same for the same `seed`.

    `labels` are classes by image. Each image is in one pair at most: only pairs without common images are independent
    outcomes, which the interval of an accuracy counts on. There may be none.
    """
    rng, images = np.random.default_rng(seed), list(labels)
    by_class: dict[int, list[int]] = defaultdict(list)
    for position in rng.permutation(len(images)).tolist():
        by_class[labels[images[position]]].append(images[position])
    same = _of_one_class(list(by_class.values()), len(labels) // 4)
    rest = [(image, label) for label, left in by_class.items() for image in left]
    different = _of_two_classes([rest[i] for i in rng.permutation(len(rest)).tolist()])
    both = min(len(same), len(different))
    turns = [pair for i in range(both) for pair in ((*same[i], True), (*different[i], False))]
    return _pairs(turns, "made of the classes")


def _of_one_class(classes: list[list[int]], most: int) -> list[tuple[int, int]]:
    """Take pairs out of the classes in turn, `most` in all."""
    pairs: list[tuple[int, int]] = []
    while classes and len(pairs) < most:
        classes = [images for images in classes if len(images) >= 2]
        for images in classes[: most - len(pairs)]:
            pairs.append((images.pop(), images.pop()))
    return pairs


def _of_two_classes(images: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pair images, given with their labels, as they come; those that wait for another class are all of one."""
    waiting: list[tuple[int, int]] = []
    pairs = []
    for image, label in images:
        if waiting and waiting[0][1] != label:
            pairs.append((waiting.pop()[0], image))
        else:
            waiting.append((image, label))
    return pairs


def _pair(line: str, where: str, numbers: Mapping[str, int], dataset: Dataset) -> tuple[int, int, bool]:
    for separator in ("\t", ",", r"\s+"):
        parts = [part.strip() for part in re.split(separator, line.strip())]
        if len(parts) == 3 and parts[2] in ("0", "1"):
            first, second = (_image(name, where, numbers, dataset) for name in parts[:2])
            return first, second, parts[2] == "1"
    raise DatasetError(f"{where}: found {line.strip()[:80]!r}; expected two images and 1 (same) or 0 (different).")


def _image(name: str, where: str, numbers: Mapping[str, int], dataset: Dataset) -> int:
    found = numbers.get(PurePosixPath(name).as_posix())
    if found is None:
        raise DatasetError(
            f"{where}: {name!r} is no image of {dataset.name}; they are called such as {dataset.origin(0)!r}."
        )
    return found


def _pairs(found: list[tuple[int, int, bool]], origin: str) -> ImagePairs:
    first, second, same = zip(*found, strict=True) if found else ((), (), ())
    return ImagePairs(
        first=np.array(first, int), second=np.array(second, int), same=np.array(same, bool), origin=origin
    )
