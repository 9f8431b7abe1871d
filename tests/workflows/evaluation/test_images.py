"""Images are tried once: what cannot be read or prepared is left out and named, the rest comes in steady batches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.calibration import data_digest
from ran_deploy.datasets import Split, image_digest, open_dataset
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.workflows.evaluation.images import read_images
from ran_deploy.workflows.exporting.quantization import calibration_images

# Without antialias the whole image is resized, and one of 1 x 70,000 pixels becomes too large.
RECIPE = Preprocessing(crop=(48, 56), resize=64, antialias=False)
GOOD, EMPTY, CUT, THIN = "b/good{}.png", "a/empty.png", "b/cut.png", "a/thin.png"


@pytest.fixture
def folder(tmp_path, rng) -> Path:
    """70 good images of two classes, and three that cannot be used."""
    for name in "ab":
        (tmp_path / name).mkdir()
    for i in range(70):
        pixels = rng.integers(0, 256, (60 + i % 3, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / GOOD.format(f"{i:02}"))
    (tmp_path / EMPTY).touch()
    (tmp_path / CUT).write_bytes((tmp_path / GOOD.format("00")).read_bytes()[:1000])
    Image.fromarray(np.zeros((1, 70_000, 3), np.uint8)).save(tmp_path / THIN)
    return tmp_path


def test_what_cannot_be_read_or_prepared_is_named_with_the_reason(folder):
    dataset, heard = open_dataset(folder, Split.TEST), []
    images = read_images(dataset, RECIPE, progress=lambda done, total: heard.append((done, total)))
    reasons = {image.file: image.reason for image in images.unreadable}
    assert set(reasons) == {EMPTY, CUT, THIN}
    assert reasons[EMPTY] == "the file is empty (0 bytes)."
    assert reasons[CUT].startswith("the PNG file is incomplete")
    assert "would be resized to 4480000x64" in reasons[THIN]
    assert not any(str(folder) in reason for reason in reasons.values())
    assert heard == [(done, 73) for done in range(1, 74)]


def test_batches_are_those_that_can_be_used_with_their_labels_every_time(folder):
    dataset = open_dataset(folder, Split.TEST)
    images = read_images(dataset, RECIPE)
    assert [dataset.origin(index) for index in images.indices] == [GOOD.format(f"{i:02}") for i in range(70)]
    first, second = list(images.batches()), list(images.batches())
    assert [len(batch) for batch, _ in first] == [32, 32, 6]
    for (batch, labels), (again, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(batch, again)
        assert labels.tolist() == [1] * len(batch)
    np.testing.assert_array_equal(first[2][0][5], prepare(dataset.image(images.indices[69]), RECIPE))


def test_an_image_that_was_calibrated_with_is_refused_whatever_else_is_broken(folder):
    dataset = open_dataset(folder, Split.TEST)
    known = image_digest(dataset.image(len(dataset) - 1))
    with pytest.raises(DatasetError, match=r"1 of 70 images .* used for calibration, the first is b/good69\.png"):
        read_images(dataset, RECIPE, used={"calibration": [known]})


def test_copies_are_told_by_their_pixels_and_warned_of_where_they_narrow_an_interval(folder):
    assert read_images(open_dataset(folder, Split.TEST), RECIPE).warnings == ()
    for copy in ("a/again.png", "b/renamed.bmp"):  # 2 of 72 are 2.8 %
        Image.open(folder / GOOD.format("07")).save(folder / copy)
    (warning,) = read_images(open_dataset(folder, Split.TEST), RECIPE).warnings
    assert warning.startswith("2 of 72 images are exact copies of others")
    assert "more images than prove them" in warning


def test_a_data_set_without_a_usable_image_is_refused_with_the_first_reason(tmp_path):
    for name in ("x.png", "y.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"No image of .* The first is x\.png: the file is empty \(0 bytes\)\."):
        read_images(open_dataset(tmp_path, Split.TEST), RECIPE)


def test_a_limit_takes_as_many_balanced_over_classes(folder, rng):
    for name in (EMPTY, CUT, THIN):
        (folder / name).unlink()
    Image.fromarray(rng.integers(0, 256, (60, 70, 3), dtype=np.uint8)).save(folder / "a" / "one.png")
    dataset = open_dataset(folder, Split.TEST)
    images = read_images(dataset, RECIPE, limit=5)
    assert sorted(dataset.label(index) for index in images.indices) == [0, 1, 1, 1, 1]


def test_calibration_passes_over_what_cannot_be_used(folder):
    dataset = open_dataset(folder, Split.TRAIN)
    found = calibration_images(dataset, 73, RECIPE)
    assert found.prepared.shape == (70, 48, 56, 3)
    assert re.match(
        r"left out 3 of 73 calibration images that cannot be read; the first is '\w/\w+\.png': \w", found.left_out
    )
    good = read_images(dataset, RECIPE).indices
    assert data_digest(found.digests) == data_digest(image_digest(dataset.image(index)) for index in good)


def test_calibration_that_can_use_every_image_has_nothing_to_say(folder):
    for name in (EMPTY, CUT, THIN):
        (folder / name).unlink()
    assert calibration_images(open_dataset(folder, Split.TRAIN), 5, RECIPE).left_out is None


@pytest.mark.parametrize("loss", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:300])])
def test_an_image_that_is_lost_between_two_passes_is_an_error_that_names_it(folder, loss):
    images = read_images(open_dataset(folder, Split.TEST), RECIPE)
    list(images.batches())
    loss(folder / GOOD.format("40"))
    with pytest.raises(
        DatasetError, match=r"could be read before cannot be any more: .*b/good40\.png.* Validate again"
    ):
        list(images.batches())
