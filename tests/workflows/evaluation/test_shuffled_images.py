"""Images in random order are read as they are asked for, and are the same on every pass."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from ran_deploy.datasets import image_digest, open_images
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.workflows.evaluation.shuffled_images import ShuffledImages

RECIPE = Preprocessing(crop=(8, 12), resize=16)
GOOD, BROKEN = 70, 5


@pytest.fixture
def dataset(tmp_path, rng):
    """70 good images in folders of two depths, and five that are empty."""
    (tmp_path / "monday" / "morning").mkdir(parents=True)
    for i in range(GOOD):
        folder = tmp_path if i % 3 else tmp_path / "monday" / "morning"
        Image.fromarray(rng.integers(0, 256, (20 + i % 3, 30, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    for i in range(BROKEN):
        (tmp_path / f"broken{i}.png").touch()
    return open_images(tmp_path)


def test_every_readable_image_comes_once_in_full_batches_of_a_random_order(dataset):
    images = ShuffledImages(dataset, RECIPE, seed=3)
    batches = list(images.batches())
    assert [len(batch) for batch in batches] == [32, 32, 6]
    taken = images.taken
    assert images.available == len(set(taken.indices)) == GOOD
    assert len(taken.unreadable) == BROKEN
    order = [i for i in np.random.default_rng(3).permutation(GOOD + BROKEN) if "broken" not in dataset.origin(i)]
    assert list(taken.indices) == order
    for image, index in zip(np.concatenate(batches), order, strict=True):
        np.testing.assert_array_equal(image, prepare(dataset.image(index), RECIPE))


def test_another_seed_gives_another_order(dataset):
    orders = set()
    for seed in range(5):
        images = ShuffledImages(dataset, RECIPE, seed=seed)
        next(images.batches())
        orders.add(images.taken.indices)
    assert len(orders) == 5


def test_no_more_is_read_than_is_asked_for(dataset, monkeypatch):
    read = []
    original = type(dataset).image
    monkeypatch.setattr(type(dataset), "image", lambda self, index: read.append(index) or original(self, index))
    next(ShuffledImages(dataset, RECIPE, seed=0).batches())
    assert 32 <= len(read) <= 64


def test_a_second_pass_repeats_the_first_batch_by_batch_and_goes_on_where_it_ended(dataset):
    images = ShuffledImages(dataset, RECIPE, seed=0)
    first = list(itertools.islice(images.batches(), 2))
    assert len(images.taken) == 64
    second = list(images.batches())
    assert [len(batch) for batch in second] == [32, 32, 6]
    for batch, again in zip(first, second, strict=False):
        np.testing.assert_array_equal(batch, again)


def test_the_limit_counts_images_that_can_be_read(dataset):
    images = ShuffledImages(dataset, RECIPE, seed=0, limit=40)
    assert [len(batch) for batch in images.batches()] == [32, 8]
    assert images.available == 40


def test_exact_copies_are_counted(dataset, tmp_path):
    (tmp_path / "copy.png").write_bytes((tmp_path / "01.png").read_bytes())
    (tmp_path / "again.png").write_bytes((tmp_path / "01.png").read_bytes())
    images = ShuffledImages(open_images(tmp_path), RECIPE, seed=0)
    assert sum(map(len, images.batches())) == GOOD + 2
    assert images.copies == 2


def test_an_image_that_was_calibrated_with_is_refused(dataset):
    images = ShuffledImages(
        dataset, RECIPE, seed=0, used={"calibration": [image_digest(dataset.image(len(dataset) - 1))]}
    )
    with pytest.raises(DatasetError, match="used for calibration"):
        list(images.batches())


def test_a_folder_of_which_nothing_can_be_read_is_refused_with_the_first_reason(tmp_path):
    (tmp_path / "only.png").touch()
    with pytest.raises(DatasetError, match=r"No image of .* only\.png: the file is empty"):
        list(ShuffledImages(open_images(tmp_path), RECIPE, seed=0).batches())
