"""From a data set's labels to the classes of a network that may number them otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.datasets.class_names import numbers_by_name
from ran_deploy.datasets.dataset import Dataset
from ran_deploy.datasets.folder import FolderDataset
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing

__all__ = ["match_labels"]

MOST_NAMES = 5  # in a message: enough to recognise a data set by


@dataclass(frozen=True)
class _Renumbered:
    """Another data set, of which each label becomes what `numbers` has for it."""

    source: Dataset
    numbers: Mapping[int, int]

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def classes(self) -> tuple[str, ...] | None:
        return None  # those of the source stand in its order

    @property
    def defaults(self) -> Preprocessing | None:
        return self.source.defaults

    def __len__(self) -> int:
        return len(self.source)

    def image(self, index: int) -> np.ndarray:
        return self.source.image(index)

    def label(self, index: int) -> int | None:
        label = self.source.label(index)
        return None if label is None else self.numbers[label]

    def origin(self, index: int) -> str:
        return self.source.origin(index)


def match_labels(dataset: Dataset, names: Sequence[str] | None, classes: int) -> tuple[Dataset, str | None]:
    """Return `dataset` with the labels of a network that has so many `classes`, which are called `names` if known.

    The second value is one sentence where labels were not simply found by name, else None. Names decide wherever all
    that have images are known. Folders with other names are numbers where all are 0..classes-1, else they are numbered
    in sorted order where there is one for each class. Data sets that hold numbers keep them, unless names contradict.
    Raises: DatasetError if the labels cannot be those of this network.
    """
    present = sorted({label for index in range(len(dataset)) if (label := dataset.label(index)) is not None})
    if not present:
        return dataset, None
    number = _from_folders if isinstance(dataset, FolderDataset) else _from_numbers
    numbers, note = number(dataset, present, names or (), classes)
    if all(label == matched for label, matched in numbers.items()):
        return dataset, note
    return _Renumbered(dataset, numbers), note


def _from_folders(
    dataset: Dataset, present: Sequence[int], names: Sequence[str], classes: int
) -> tuple[dict[int, int], str | None]:
    assert dataset.classes is not None
    used = {label: dataset.classes[label] for label in present}
    known = numbers_by_name(used.values(), names)
    if len(known) == len(used):
        return {label: known[name] for label, name in used.items()}, None
    if not known and all(_is_number(name, classes) for name in used.values()):
        return {label: int(name) for label, name in used.items()}, "the class folders are taken as label numbers"
    if not known and len(dataset.classes) == classes:
        reason = f"are none of the bundle's {_some(names)}" if names else "stand for classes without names"
        order = "numbered in sorted order, as torchvision's ImageFolder does"
        note = f"class folders {_some(dataset.classes)} {reason}: {order}"
        return {label: label for label in present}, note
    raise DatasetError(_unlike(dataset, tuple(used.values()), known, names, classes))


def _unlike(dataset: Dataset, used: Sequence[str], known: Mapping[str, int], names: Sequence[str], classes: int) -> str:
    unknown = [name for name in used if name not in known]
    which = f"{len(unknown)} of them unknown to the bundle: {_some(unknown)}" if known else _some(unknown)
    expected = counted(classes, "class", "classes") + (f", {_some(names)}" if names else " without names")
    rename = "Name the folders like its classes" if names else "Export with --labels, name the folders as there"
    return (
        f"{dataset.name} has {counted(len(used), 'class folder')} ({which}); the bundle has {expected}. "
        f"{rename} or 0 to {classes - 1}, or give other --data."
    )


def _from_numbers(
    dataset: Dataset, present: Sequence[int], names: Sequence[str], classes: int
) -> tuple[dict[int, int], str | None]:
    called = dataset.classes if dataset.classes and len(dataset.classes) > present[-1] else ()
    known = numbers_by_name(called, names)
    if called and all(called[label] in known for label in present):
        numbers = {label: known[called[label]] for label in present}
        moved = any(label != number for label, number in numbers.items())
        return numbers, "labels follow the class names, which the bundle has in another order" if moved else None
    if present[-1] >= classes:
        raise DatasetError(_out_of_range(dataset, present, classes))
    if any(known.get(name, place) != place for place, name in enumerate(called)):
        unknown = [called[label] for label in present if called[label] not in known]
        raise DatasetError(
            f"{dataset.name} numbers its classes {_some(called)}, the bundle {_some(names)}: the order differs, and "
            f"{_some(unknown)} cannot be found by name. Give the data set the bundle's class names, or none."
        )
    numbers = {label: label for label in present}
    if called and names and len(known) < len(called):
        return numbers, f"class names {_some(called)} are not all the bundle's {_some(names)}: label numbers are kept"
    return numbers, None


def _out_of_range(dataset: Dataset, present: Sequence[int], classes: int) -> str:
    from_one = present[0] == 1 and present[-1] == classes
    advice = "They seem to count from 1: subtract 1." if from_one else "Validate with the classes it was trained on."
    return (
        f"{dataset.name} has labels {present[0]} to {present[-1]}; the bundle has "
        f"{counted(classes, 'class', 'classes')}, 0 to {classes - 1}. {advice}"
    )


def _is_number(name: str, classes: int) -> bool:
    return name.isascii() and name.isdecimal() and int(name) < classes


def _some(names: Sequence[str]) -> str:
    """Return the first few names in quotes: without them a line feed in a folder's name would end the line."""
    shown = ", ".join(repr(name) for name in names[:MOST_NAMES])
    return f"{shown} and {more} more" if (more := len(names) - MOST_NAMES) > 0 else shown
