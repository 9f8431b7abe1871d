"""Which choices of calibration images are warned of, and which are not."""

from __future__ import annotations

import pytest

from ran_deploy.workflows.exporting.selection_warnings import selection_warnings


def digests(count: int, copies: int = 0) -> list[str]:
    return [f"{max(index - copies, 0):064x}" for index in range(count)]


@pytest.mark.parametrize("count", [32, 64, 512])
@pytest.mark.parametrize("classes", [10, None])
def test_right_images_are_not_warned_of(count, classes):
    assert selection_warnings(digests(count), [index % 10 for index in range(count)], classes) == ()


def test_few_images_are_counted():
    (warning,) = selection_warnings(digests(8), [None] * 8, 10)
    assert warning.startswith("only 8 calibration images")


@pytest.mark.parametrize(("copies", "warned"), [(2, False), (5, False), (6, True), (60, True)])
def test_many_copies_are_warned_of(copies, warned):
    found = selection_warnings(digests(100, copies), [None] * 100, None)
    assert [f"{copies} of 100 calibration images are copies" in warning for warning in found] == [True] * warned


def test_missing_classes_are_counted():
    (warning,) = selection_warnings(digests(64), [index % 8 for index in range(64)], 10)
    assert "show 8 of the network's 10 classes" in warning


def test_rare_classes_are_told():
    (warning,) = selection_warnings(digests(64), [int(index < 5) for index in range(64)], 2)
    assert "unbalanced: 5 of one class, 59 of another" in warning


def test_nothing_is_said_of_classes_where_labels_are_unknown_or_images_few():
    assert selection_warnings(digests(64), [None, *[0] * 63], 10) == ()
    assert selection_warnings(digests(64), [0] * 64, 100) == ()
