"""Digests recognise copies by their pixels, and overlap is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.datasets import Split, digests, image_digest, open_dataset, refuse_overlap
from ran_deploy.errors import DatasetError


def write_images(folder: Path, seeds: range) -> None:
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:03}.png")


def test_image_digest_is_that_of_shape_and_pixels():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    shape = b"\2\0\0\0\4\0\0\0\3\0\0\0"
    assert image_digest(image) == hashlib.sha256(shape + bytes(range(24))).hexdigest()
    assert image_digest(np.asfortranarray(image)) == image_digest(image)
    assert image_digest(image.reshape(4, 2, 3)) != image_digest(image)


def test_digests_keep_the_order_asked_for(tmp_path):
    write_images(tmp_path, range(5))
    dataset = open_dataset(tmp_path, Split.TEST)
    assert digests(dataset, [4, 0, 2]) == {i: image_digest(dataset.image(i)) for i in (4, 0, 2)}


def test_a_copy_under_another_name_and_format_is_an_overlap(tmp_path):
    write_images(tmp_path / "calibration", range(6))
    write_images(tmp_path / "validation", range(10, 14))
    used = digests(open_dataset(tmp_path / "calibration", Split.TRAIN), range(6)).values()
    validation = open_dataset(tmp_path / "validation", Split.TEST)
    refuse_overlap(used, digests(validation, range(4)), validation)
    Image.open(tmp_path / "calibration" / "003.png").save(tmp_path / "validation" / "z.bmp")
    shutil.copy(tmp_path / "calibration" / "005.png", tmp_path / "validation" / "y.png")
    validation = open_dataset(tmp_path / "validation", Split.TEST)
    with pytest.raises(DatasetError, match=r"2 of 6 images of validation .* the first is y\.png"):
        refuse_overlap(used, digests(validation, range(6)), validation)


def test_a_damaged_image_does_not_stop_the_search_for_overlap(tmp_path):
    write_images(tmp_path, range(2))
    dataset = open_dataset(tmp_path, Split.TRAIN)
    used = digests(dataset, [1]).values()
    (tmp_path / "000.png").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"1 of 1 images .* 001\.png"):
        refuse_overlap(used, digests(dataset, range(2)), dataset)
