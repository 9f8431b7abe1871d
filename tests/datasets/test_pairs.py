"""Pairs from a file are those written there; pairs made of classes are balanced, disjoint and always the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ran_deploy.datasets.dataset import ArrayDataset
from ran_deploy.datasets.pairs import pairs_of_classes, read_pairs
from ran_deploy.errors import DatasetError


@pytest.fixture
def dataset() -> ArrayDataset:
    """Ten images of two files; their names hold spaces."""
    images = np.zeros((10, 2, 3), np.uint8)
    return ArrayDataset(name="faces", kind="npz", images=images, labels=None, origins=(("a b.npz", 4), ("c.npz", 6)))


def as_tuples(pairs) -> list[tuple[int, int, bool]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.same.tolist(), strict=True))


def test_lines_are_pairs_whatever_separates_them(dataset, tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text(
        "# left right same\n\na b.npz[0]\ta b.npz[3]\t1\na b.npz[1], c.npz[5] ,0\n./c.npz[0] c.npz[1] 1\r\n"
    )
    pairs = read_pairs(path, dataset)
    assert as_tuples(pairs) == [(0, 3, True), (1, 9, False), (4, 5, True)]
    assert pairs.images == [0, 1, 3, 4, 5, 9]
    assert pairs.origin == "listed in pairs.txt"


def test_the_mark_that_some_editors_put_first_is_no_part_of_a_name(dataset, tmp_path):
    (tmp_path / "p.txt").write_text("c.npz[0] c.npz[1] 1\n", encoding="utf-8-sig")
    assert as_tuples(read_pairs(tmp_path / "p.txt", dataset)) == [(4, 5, True)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no pairs"),
        ("c.npz[0] c.npz[1] 1\nc.npz[0] c.npz[1]\n", r"line 2: found 'c\.npz\[0\] c\.npz\[1\]'; expected two images"),
        ("c.npz[0] c.npz[1] 2", "expected two images and 1"),
        ("c.npz[0] c.npz[1] 0\nc.npz[2] ./c.npz[2] 1", r"line 2: 'c\.npz\[2\]' is paired with itself"),
        ("#\nc.npz[0] c.npz[1] 1\nc.npz[0],c.npz[1],1", "line 3: line 2 pairs the same two images"),
        ("c.npz[0] c.npz[1] 1\n\nc.npz[1] c.npz[0] 0", "line 3: line 1 pairs the same two images"),
        ("c.npz[0] d.npz[1] 0", r"'d\.npz\[1\]' is no image of faces; they are called such as 'a b\.npz\[0\]'"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_line(text, words, dataset, tmp_path):
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(DatasetError, match=words):
        read_pairs(tmp_path / "pairs.txt", dataset)


def test_a_file_that_cannot_be_read_is_refused(dataset, tmp_path):
    with pytest.raises(DatasetError, match=r"^Cannot read --pairs .*none.txt \(No such file or directory\)"):
        read_pairs(tmp_path / "none.txt", dataset)
    (tmp_path / "latin.txt").write_bytes("a/á.png b.png 1".encode("latin-1"))
    with pytest.raises(DatasetError, match="no UTF-8 text"):
        read_pairs(tmp_path / "latin.txt", dataset)


def test_pairs_with_an_image_that_is_not_there_are_left_out(dataset, tmp_path):
    (tmp_path / "p.txt").write_text("c.npz[0] c.npz[1] 1\nc.npz[0] c.npz[2] 0\n")
    pairs = read_pairs(tmp_path / "p.txt", dataset).renumbered({4: 0, 6: 1})
    assert as_tuples(pairs) == [(0, 1, False)]


CLASSES = {
    "ten of one size": [30] * 10,
    "two": [40, 40],
    "uneven": [100, 7, 2, 1],
    "many of few images": [2, 3] * 50,
    "one": [50],
    "one image each": [1] * 30,
    "nothing": [],
}


@pytest.mark.parametrize("case", CLASSES)
def test_pairs_of_classes_are_balanced_disjoint_and_true(case):
    labels = {
        100 + i: label for i, label in enumerate(np.repeat(np.arange(len(CLASSES[case])), CLASSES[case]).tolist())
    }
    pairs = pairs_of_classes(labels)
    found = as_tuples(pairs)
    assert Counter(same for _, _, same in found)[True] * 2 == len(found)
    assert len(pairs.images) == 2 * len(found)
    assert all((labels[a] == labels[b]) == same for a, b, same in found)
    assert [same for _, _, same in found] == [i % 2 == 0 for i in range(len(found))]
    assert as_tuples(pairs_of_classes(labels)) == found


def test_nearly_all_images_of_even_classes_are_in_pairs():
    labels = dict(enumerate(np.arange(400) % 10))
    pairs = pairs_of_classes(labels)
    assert len(pairs) > 195
    assert len({labels[image] for image in pairs.first[pairs.same]}) == 10
    assert len({(labels[a], labels[b]) for a, b, same in as_tuples(pairs) if not same}) > 30
