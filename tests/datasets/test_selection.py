"""Selected images are different, balanced and the same every time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ran_deploy.datasets import select_indices
from ran_deploy.datasets.dataset import ArrayDataset
from ran_deploy.errors import ConfigError


def dataset(labels: list[int] | None, count: int = 0) -> ArrayDataset:
    images = np.zeros((len(labels) if labels else count, 4, 5, 3), np.uint8)
    known = None if labels is None else np.array(labels)
    return ArrayDataset(name="x", kind="x", images=images, labels=known, origins=(("x", len(images)),))


LABELS = [0] * 50 + [1] * 30 + [2] * 3


@pytest.mark.parametrize(
    ("count", "expected"), [(9, {0: 3, 1: 3, 2: 3}), (23, {0: 10, 1: 10, 2: 3}), (83, {0: 50, 1: 30, 2: 3})]
)
def test_classes_are_balanced_as_far_as_they_go(count, expected):
    indices = select_indices(dataset(LABELS), count)
    assert len(set(indices)) == len(indices) == count
    assert Counter(LABELS[i] for i in indices) == expected


def test_every_beginning_is_balanced():
    indices = select_indices(dataset(LABELS), 9)
    assert all(sorted(LABELS[i] for i in indices[start : start + 3]) == [0, 1, 2] for start in (0, 3, 6))


def test_the_seed_decides():
    assert select_indices(dataset(LABELS), 20) == select_indices(dataset(LABELS), 20, seed=0)
    assert select_indices(dataset(LABELS), 20) != select_indices(dataset(LABELS), 20, seed=1)


def test_fewer_images_than_classes_are_of_different_classes():
    labels = [i // 4 for i in range(400)]
    chosen = {labels[i] for i in select_indices(dataset(labels), 30)}
    assert len(chosen) == 30
    assert max(chosen) > 50  # not simply the first classes


def test_images_without_labels_are_sampled_and_all_are_given_if_too_few():
    assert len(set(select_indices(dataset(None, 50), 20))) == 20
    assert sorted(select_indices(dataset(None, 5), 20)) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="0 images"):
        select_indices(dataset(None, 5), 0)
