"""Digests recognise copies by their pixels, and overlap is refused."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.datasets import Dataset, Split, image_digest, open_dataset, refuse_overlap
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


def digests(folder: Path) -> tuple[Dataset, dict[int, str]]:
    dataset = open_dataset(folder, Split.TEST)
    return dataset, {index: image_digest(dataset.image(index)) for index in range(len(dataset))}


def test_a_copy_under_another_name_and_format_is_an_overlap(tmp_path):
    write_images(tmp_path / "calibration", range(6))
    write_images(tmp_path / "validation", range(10, 14))
    used = {"nothing": [], "calibration": digests(tmp_path / "calibration")[1].values()}
    validation, found = digests(tmp_path / "validation")
    refuse_overlap(used, found, validation)
    Image.open(tmp_path / "calibration" / "003.png").save(tmp_path / "validation" / "z.bmp")
    shutil.copy(tmp_path / "calibration" / "005.png", tmp_path / "validation" / "y.png")
    validation, found = digests(tmp_path / "validation")
    with pytest.raises(
        DatasetError, match=r"2 of 6 images of validation were used for calibration, the first is y\.png"
    ):
        refuse_overlap(used, found, validation)
