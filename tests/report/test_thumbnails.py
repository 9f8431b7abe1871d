"""Thumbnails are means of blocks, in PNGs that Pillow reads."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ran_deploy.report.thumbnails import LONGEST_SIDE, png, png_data_uri, thumbnail


def test_pillow_reads_the_same_pixels(rng):
    image = rng.integers(0, 256, (13, 29, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(png(image))) as read:
        read.verify()  # checksums
    with Image.open(io.BytesIO(png(image))) as read:
        assert read.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(read), image)


def test_a_small_image_is_kept_as_it_is(rng):
    image = rng.integers(0, 256, (32, LONGEST_SIDE, 3), dtype=np.uint8)
    np.testing.assert_array_equal(thumbnail(image), image)


def test_a_large_image_becomes_means_of_blocks(rng):
    image = rng.integers(0, 256, (2 * LONGEST_SIDE + 1, 123, 3), dtype=np.uint8)  # 321 high: blocks of 3
    small = thumbnail(image)
    assert small.shape == (107, 41, 3)
    expected = image[: 3 * 107].astype(float)
    np.testing.assert_allclose(small[5, 7], expected[15:18, 21:24].mean(axis=(0, 1)), atol=0.5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4000, 3), (4000, 2, 3), (375, 500, 3)])
def test_any_shape_gives_a_picture(shape):
    image = np.full(shape, 77, np.uint8)
    uri = png_data_uri(image)
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as read:
        assert np.asarray(read).min() == np.asarray(read).max() == 77


def test_views_that_are_not_contiguous_are_written_right(rng):
    image = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)[::-1, ::2, ::-1]
    with Image.open(io.BytesIO(png(image))) as read:
        np.testing.assert_array_equal(np.asarray(read), image)
