from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.datasets import Split, open_dataset
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.workflows.evaluation.images import ValidationImages
from ran_deploy.workflows.validation.attention import thinned


@pytest.fixture
def images(tmp_path) -> ValidationImages:
    """A hundred images without the first ten, each of one shade: its number."""
    shades = np.repeat(np.arange(100, dtype=np.uint8), 48).reshape(100, 4, 4, 3)
    np.savez(tmp_path / "x.npz", images=shades, labels=np.arange(100) // 10)
    dataset = open_dataset(tmp_path / "x.npz", Split.TEST)
    return ValidationImages(
        dataset=dataset, recipe=Preprocessing(crop=(4, 4)), indices=tuple(range(10, 100)), unreadable=()
    )


@pytest.mark.parametrize(("most", "expected"), [(1, 1), (9, 9), (90, 90), (256, 90)])
def test_no_more_images_than_asked_for_and_than_there_are(images, most, expected):
    some = thinned(images, most)
    assert len(set(some.indices)) == len(some) == expected
    assert set(some.indices) <= set(images.indices)


def test_images_are_spread_over_all_classes(images):
    some = thinned(images, 9)
    assert {images.dataset.label(index) for index in some.indices} == set(range(1, 10))
    batch, _ = next(some.batches())
    assert batch[:, 0, 0, 0].tolist() == list(some.indices)
