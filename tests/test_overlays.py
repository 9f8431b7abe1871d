from __future__ import annotations

import math

import numpy as np
import pytest

from ran_deploy.overlays import attention_panels, displayed, mask_range, overlay, range_text
from ran_deploy.preprocessing import ChannelOrder, Preprocessing

GREY = np.full((30, 60, 3), 100, np.uint8)


def viridis(share: float) -> np.ndarray:
    """Return matplotlib's colour in 0..255: OpenCV has its own table of the same map."""
    matplotlib = pytest.importorskip("matplotlib")
    return 255 * np.array(matplotlib.colormaps["viridis"](share)[:3])


def test_low_is_dark_blue_and_high_is_yellow_over_the_grey_of_the_image():
    mask = np.array([[0.2, 0.6]])
    drawn = overlay(GREY, mask, 0.2, 0.6)
    assert drawn.shape == GREY.shape
    np.testing.assert_allclose(drawn[10, 0], 0.6 * viridis(0) + 40, atol=3)
    np.testing.assert_allclose(drawn[10, -1], 0.6 * viridis(1.0) + 40, atol=3)
    np.testing.assert_allclose(drawn[10, 29:31].mean(axis=0), 0.6 * viridis(0.5) + 40, atol=3)


def test_rows_and_columns_of_the_mask_are_those_of_the_image():
    mask = np.zeros((3, 4))
    mask[2, 0] = 1  # bottom left
    brightness = overlay(GREY, mask, 0, 1).sum(axis=2)
    assert brightness[25:, :10].min() > brightness[:15].max()
    assert brightness[25:, :10].min() > brightness[:, 30:].max()


def test_values_beyond_the_scale_have_the_colours_of_its_ends():
    inside, beyond = overlay(GREY, np.array([[0.0, 1.0]]), 0, 1), overlay(GREY, np.array([[-7.0, 9.0]]), 0, 1)
    np.testing.assert_array_equal(beyond[:, [0, -1]], inside[:, [0, -1]])


@pytest.mark.parametrize("mask", [np.full((2, 2), 0.4), np.full((2, 2), np.nan)])
def test_a_mask_that_has_no_range_is_of_one_colour(mask):
    drawn = overlay(GREY, mask, *mask_range(mask))
    assert (drawn == drawn[0, 0]).all()


def test_the_range_is_that_of_all_masks_together():
    assert mask_range(np.array([[0.3, 0.5]]), np.array([[0.1, 0.4]])) == (0.1, 0.5)
    assert all(map(math.isnan, mask_range(np.array([[0.3]]), np.array([[np.inf]]))))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.9, ("0.10", "0.90")),
        (0.46, 0.476, ("0.460", "0.476")),
        (0.5, 0.5, ("0.50", "0.50")),
        (-0.25, 3.0, ("-0.25", "3.00")),
        (0.5, 0.50001, ("0.5000", "0.5000")),
    ],
)
def test_ends_of_a_scale_have_the_digits_that_tell_them_apart(low, high, expected):
    assert range_text(low, high) == expected


def test_images_are_shown_in_rgb_whatever_the_network_takes(rng):
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    shown = displayed(image[:, :, ::-1], Preprocessing(crop=(4, 5), channel_order=ChannelOrder.BGR))
    np.testing.assert_array_equal(shown, image)
    np.testing.assert_array_equal(displayed(image, Preprocessing(crop=(4, 5))), image)


def test_panels_stand_side_by_side_and_then_in_further_lines(rng):
    image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    heights, widths = [], []
    for count in (1, 7, 8):
        picture = attention_panels(image, {f"stage1.module{i}": rng.random((4, 8)) for i in range(count)})
        heights.append(picture.shape[0])
        widths.append(picture.shape[1])
    step = widths[0] - widths[0] // 2  # two panels and a gap
    assert widths == [widths[0], widths[0] + 6 * (step - 4), widths[1]]
    assert heights[0] == heights[1]
    assert heights[2] - 8 == 2 * (heights[0] - 8)


def test_the_first_panel_is_the_image_enlarged_in_whole_steps(rng):
    image = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    picture = attention_panels(image, {"gate": np.ones((1, 1))})
    np.testing.assert_array_equal(picture[52 : 52 + 96, 8 : 8 + 192], image.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize("size", [(1, 1), (900, 20), (20, 900), (448, 448)])
def test_images_of_any_shape_fit(size, rng):
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = attention_panels(image, {"a very long name of a module that fits nowhere" * 3: rng.random((2, 3))})
    assert max(picture.shape) < 1100


def test_masks_without_a_range_and_names_beyond_ascii_can_be_drawn():
    masks = {"flat": np.full((2, 2), 0.5), "lost": np.full((2, 2), np.nan), "größe": np.eye(2)}
    assert attention_panels(GREY, masks).dtype == np.uint8
