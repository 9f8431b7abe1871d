"""Pre-processing against Pillow, PyTorch and torchvision's documented arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ran_deploy.errors import ConfigError, InputError, ShapeError
from ran_deploy.preprocessing import ChannelOrder, Interpolation, Preprocessing, describe, prepare

PILLOW_FILTERS = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow_resized(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resize across, then down: two calls, as Pillow's own order for both at once depends on its version."""
    kind = PILLOW_FILTERS[interpolation]
    return np.asarray(Image.fromarray(image).resize((width, image.shape[0]), kind).resize((width, height), kind))


@pytest.mark.parametrize("interpolation", Interpolation)
def test_antialiased_resize_is_pillows_to_the_bit(interpolation):
    rng = np.random.default_rng(1)
    for seed in range(60):
        h, w, height, width = (int(n) for n in rng.integers(1, 130, 4))
        image = noise(h, w, seed)
        recipe = Preprocessing(crop=(height, width), resize=(height, width), interpolation=interpolation)
        expected = pillow_resized(image, height, width, interpolation)
        np.testing.assert_array_equal(prepare(image, recipe), expected, err_msg=f"{(h, w)} -> {(height, width)}")


@pytest.mark.parametrize(
    ("size", "resized"), [((375, 500), (256, 341)), ((500, 333), (384, 256)), ((224, 300), (256, 342))]
)
def test_shorter_side_is_resized_and_the_centre_cut_as_in_image_net_evaluation(size, resized):
    image = noise(*size)
    whole = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
    top, left = round((resized[0] - 224) / 2), round((resized[1] - 224) / 2)
    expected = np.asarray(whole)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(prepare(image, Preprocessing(crop=(224, 224), resize=256)), expected)


def test_a_crop_is_the_crop_of_the_whole_resized_image():
    image = noise(61, 47)
    whole = prepare(image, Preprocessing(crop=(90, 31), resize=(90, 31), interpolation=Interpolation.BICUBIC))
    part = prepare(image, Preprocessing(crop=(18, 20), resize=(90, 31), interpolation=Interpolation.BICUBIC))
    np.testing.assert_array_equal(part, whole[36:54, 6:26])  # (31 - 20) / 2 = 5.5 is rounded to the even 6


@pytest.mark.parametrize(
    ("interpolation", "mode"), [(Interpolation.BILINEAR, "bilinear"), (Interpolation.BICUBIC, "bicubic")]
)
@pytest.mark.parametrize("size", [(20, 33), (97, 150)])
def test_without_antialias_it_is_the_plain_interpolation_of_tensors(interpolation, mode, size):
    image = noise(53, 71)
    recipe = Preprocessing(crop=size, resize=size, interpolation=interpolation, antialias=False)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, size, mode=mode, align_corners=False)[0].permute(1, 2, 0)
    difference = prepare(image, recipe).astype(float) - expected.round().clamp(0, 255).numpy()
    assert np.abs(difference).max() <= 1


def test_small_images_are_padded_with_zeros_around():
    image = noise(5, 4) | 1
    prepared = prepare(image, Preprocessing(crop=(8, 7)))
    np.testing.assert_array_equal(prepared[1:6, 1:5], image)  # (8 - 5) // 2 = 1 above, (7 - 4) // 2 = 1 to the left
    assert np.count_nonzero(prepared) == image.size


def test_an_image_can_be_padded_in_height_and_cut_in_width():
    image = noise(4, 9) | 1
    prepared = prepare(image, Preprocessing(crop=(6, 5)))
    np.testing.assert_array_equal(prepared[1:5], image[:, 2:7])
    assert not prepared[[0, 5]].any()


def test_channel_order_bgr_flips_and_stays_contiguous():
    image = noise(6, 8)
    prepared = prepare(image, Preprocessing(crop=(6, 8), channel_order=ChannelOrder.BGR))
    np.testing.assert_array_equal(prepared, image[..., [2, 1, 0]])
    assert prepared.flags.c_contiguous


def test_prepare_leaves_its_argument_alone():
    image = noise(40, 30)
    before = image.copy()
    prepared = prepare(image, Preprocessing(crop=(40, 30)))
    np.testing.assert_array_equal(prepared, before)
    prepare(image, Preprocessing(crop=(16, 20), resize=24))[:] = 0
    np.testing.assert_array_equal(image, before)


def test_an_extreme_aspect_ratio_needs_no_more_memory_than_its_crop():
    prepared = prepare(noise(1, 20_000), Preprocessing(crop=(32, 32), resize=256))
    assert prepared.shape == (32, 32, 3)


def test_an_extreme_aspect_ratio_is_refused_where_the_whole_image_must_be_resized():
    recipe = Preprocessing(crop=(32, 32), resize=256, antialias=False)
    with pytest.raises(InputError, match=r"20000x1 would be resized to 5120000x256"):
        prepare(noise(1, 20_000), recipe)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
    ],
)
def test_prepare_names_the_shape_and_type_it_cannot_use(image):
    with pytest.raises(ShapeError, match=rf"type {image.dtype} and shape \({image.shape[0]}, .*uint8 RGB"):
        prepare(image, Preprocessing(crop=(4, 5)))


@pytest.mark.parametrize(
    "wrong", [{"crop": (0, 4)}, {"resize": -1}, {"resize": 0}, {"resize": (3, 0)}, {"std": (1.0, 0.0, 1.0)}]
)
def test_a_recipe_that_cannot_work_is_refused(wrong):
    with pytest.raises(ConfigError, match="positive"):
        Preprocessing(**{"crop": (4, 4), **wrong})


@pytest.mark.parametrize("mean", [(123.7, 116.3, 103.5), (0.5, 0.5, float("nan")), (-0.1, 0.5, 0.5)])
def test_means_of_pixels_not_scaled_to_one_are_refused(mean):
    with pytest.raises(ConfigError, match="Divide by 255"):
        Preprocessing(crop=(4, 4), mean=mean)


def test_a_recipe_is_described_in_the_order_of_execution():
    plain = Preprocessing(crop=(32, 40), mean=(0.25, 0.25, 0.25), std=(0.5, 0.5, 0.5))
    assert describe(plain) == "centre crop 32x40, RGB, mean 0.25, std 0.5"
    full = Preprocessing(
        crop=(224, 200),
        resize=256,
        interpolation=Interpolation.BICUBIC,
        antialias=False,
        channel_order=ChannelOrder.BGR,
        mean=(0.485, 0.456, 0.406),
    )
    assert describe(full) == (
        "resize shorter side to 256 (bicubic, no antialias), centre crop 224x200, BGR, mean 0.485 0.456 0.406, std 1"
    )
    assert describe(Preprocessing(crop=(8, 8), resize=(9, 10))).startswith("resize to 9x10 (bilinear), ")
