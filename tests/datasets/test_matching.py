"""Labels become the network's classes by name, by number or in sorted order, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ran_deploy.datasets import Dataset, Split, match_labels, open_dataset
from ran_deploy.errors import DatasetError

NAMES = ("T-shirt/top", "Trouser", "Bag")


def folder(path: Path, *names: str) -> Dataset:
    """Return a folder by class with one file each: nothing here decodes them."""
    for name in names:
        (path / name).mkdir()
        (path / name / "x.png").touch()
    return open_dataset(path, Split.TEST)


def arrays(path: Path, labels: list[int], classes: tuple[str, ...] | None = None) -> Dataset:
    content = {} if classes is None else {"classes": np.array(classes)}
    np.savez(path / "data.npz", images=np.zeros((len(labels), 4, 5), np.uint8), labels=np.array(labels), **content)
    return open_dataset(path / "data.npz", Split.TEST)


def by_origin(dataset: Dataset) -> dict[str, int | None]:
    return {dataset.origin(index).partition("/")[0]: dataset.label(index) for index in range(len(dataset))}


def test_folders_are_found_by_name_whatever_the_sorted_order_or_a_missing_class(tmp_path):
    matched, note = match_labels(folder(tmp_path, "Bag", "t-shirt_top"), NAMES, 3)
    assert by_origin(matched) == {"Bag": 2, "t-shirt_top": 0}
    assert note is None


def test_a_renumbered_data_set_is_the_same_in_all_else(tmp_path):
    source = folder(tmp_path, "Bag", "Trouser")
    matched, _ = match_labels(source, NAMES, 3)
    assert (len(matched), matched.name, matched.kind, matched.defaults) == (2, source.name, source.kind, None)
    assert [matched.origin(i) for i in range(2)] == [source.origin(i) for i in range(2)]


def test_an_empty_folder_of_an_unknown_name_does_no_harm(tmp_path):
    (tmp_path / "junk").mkdir()
    assert by_origin(match_labels(folder(tmp_path, "Trouser"), NAMES, 3)[0]) == {"Trouser": 1}


@pytest.mark.parametrize("names", [None, tuple(f"class {i:02}" for i in range(20))])
def test_numeric_folders_are_indices_and_not_sorted_as_text(tmp_path, names):
    matched, note = match_labels(folder(tmp_path, "2", "10", "0"), names, 20)
    assert by_origin(matched) == {"0": 0, "10": 10, "2": 2}
    assert "label numbers" in note


def test_numbers_that_are_names_of_the_bundle_are_names(tmp_path):
    matched, note = match_labels(folder(tmp_path, "2", "10"), ("0", "10", "2"), 3)
    assert by_origin(matched) == {"10": 1, "2": 2}
    assert note is None


@pytest.mark.parametrize(("names", "said"), [(NAMES, "are none of the bundle's"), (None, "without names")])
def test_as_many_folders_of_wholly_other_names_are_in_sorted_order_and_it_is_said(tmp_path, names, said):
    matched, note = match_labels(folder(tmp_path, "cat", "ape", "dog"), names, 3)
    assert by_origin(matched) == {"ape": 0, "cat": 1, "dog": 2}
    assert said in note
    assert "torchvision" in note


REFUSED = {
    "an unknown name next to known ones": (
        ("Bag", "Trouser", "horse"),
        NAMES,
        "1 of them unknown to the bundle: 'horse'",
    ),
    "more folders than classes": (("a", "b", "c", "d"), NAMES, r"4 class folders \('a', 'b', 'c', 'd'\)"),
    "fewer folders of other names": (("a", "b"), NAMES, "the bundle has 3 classes, 'T-shirt/top', 'Trouser', 'Bag'"),
    "fewer folders for classes without names": (
        ("a",),
        None,
        "3 classes without names. Export with --labels, name the folders as there or 0 to 2",
    ),
    "numbers beyond the classes": (("0", "3"), NAMES, r"or 0 to 2, or give other --data"),
    "a name with a line feed": (("a\nb",), NAMES, r"'a\\nb'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folders_are_refused_for(case, tmp_path):
    folders, names, words = REFUSED[case]
    with pytest.raises(DatasetError, match=words) as refusal:
        match_labels(folder(tmp_path, *folders), names, 3)
    assert "\n" not in str(refusal.value)


def test_numbers_without_names_are_kept(tmp_path):
    source = arrays(tmp_path, [2, 0])
    assert match_labels(source, NAMES, 3) == (source, None)


def test_a_data_set_without_labels_is_kept(tmp_path):
    (tmp_path / "x.png").touch()
    source = open_dataset(tmp_path, Split.TEST)
    assert match_labels(source, NAMES, 3) == (source, None)


def test_names_of_numbers_decide_where_all_are_known(tmp_path):
    matched, note = match_labels(arrays(tmp_path, [0, 2], ("bag", "horse", "trouser")), NAMES, 3)
    assert [matched.label(index) for index in range(2)] == [2, 1]
    assert "in another order" in note


@pytest.mark.parametrize("classes", [("cat", "ape", "dog"), ("shirt", "trouser", "bag")])
def test_numbers_with_other_names_are_kept_where_none_contradicts_and_it_is_said(tmp_path, classes):
    matched, note = match_labels(arrays(tmp_path, [0, 2], classes), NAMES, 3)
    assert [matched.label(index) for index in range(2)] == [0, 2]
    assert "label numbers are kept" in note


def test_numbers_with_names_in_another_order_are_refused_where_one_is_unknown(tmp_path):
    with pytest.raises(DatasetError, match="the order differs, and 'horse' cannot be found by name"):
        match_labels(arrays(tmp_path, [0, 1], ("bag", "horse", "trouser")), NAMES, 3)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 3], r"labels 0 to 3; the bundle has 3 classes, 0 to 2\. Validate with"),
        ([1, 2, 3], "count from 1: subtract 1"),
    ],
)
def test_numbers_beyond_the_classes_are_refused(tmp_path, labels, words):
    with pytest.raises(DatasetError, match=words):
        match_labels(arrays(tmp_path, labels), NAMES, 3)
