"""Collection: the same ranges bit for bit however images arrive, and no silent NaN."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from ran_deploy.calibration import RANGE_RULES, CalibrationMethod, collect_ranges
from ran_deploy.calibration.collect import MICRO_BATCH
from ran_deploy.errors import CalibrationError


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (21, 6, 9, 3), dtype=np.uint8)


def batch_sensitive_run(images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return tensors that depend, as rounding does in engines, on how many images run together."""
    x = images.astype(np.float32) / len(images) - 7
    return {"conv1": x, "conv2": np.maximum(x, 0) * np.float32(0.37)}


@pytest.mark.parametrize("cuts", [[1, 2, 3], [8, 16], [5], [20]])
def test_the_callers_batches_change_no_bit_of_any_method(images, cuts):
    whole = collect_ranges(batch_sensitive_run, [images], after=[8, 16])
    assert list(whole) == [8, 16, 21]
    assert list(whole[21]) == list(RANGE_RULES)
    assert collect_ranges(batch_sensitive_run, np.split(images, cuts), after=[8, 16]) == whole


def test_minmax_ranges_are_those_of_all_images(images):
    ranges = collect_ranges(lambda x: {"a": x - 300.0, "b": x * 0.5}, [images], [CalibrationMethod.MINMAX])
    assert ranges == {21: {CalibrationMethod.MINMAX: {"a": 300.0 - images.min(), "b": images.max() / 2}}}


@pytest.mark.parametrize("images_of_all", [8, 16])
def test_what_the_first_images_gave_is_what_they_give_alone(images, images_of_all):
    found = collect_ranges(batch_sensitive_run, [images], after=[8, 16])
    alone = collect_ranges(batch_sensitive_run, [images[:images_of_all]], after=[images_of_all])
    assert alone == {images_of_all: found[images_of_all]}


def test_tensors_keep_their_order_and_progress_counts_images(images):
    done: list[int] = []
    run = batch_sensitive_run
    ranges = collect_ranges(run, [images[:3], images[3:]], [CalibrationMethod.MINMAX], progress=done.append)
    assert list(ranges[21][CalibrationMethod.MINMAX]) == ["conv1", "conv2"]
    assert done == [MICRO_BATCH, 2 * MICRO_BATCH, 21]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_named(images, bad):
    images[13, 2, 4, 1], images[images == 255] = 255, 254
    images[13, 2, 4, 1] = 255

    def run(x: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"fine": x * 1.0, "layer3/conv": np.where(x == 255, bad, x)}

    with pytest.raises(CalibrationError, match=r"'layer3/conv' holds NaN or infinity on calibration images 8 to 15"):
        collect_ranges(run, [images])


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 4, 5, 3), np.uint8)]])
def test_no_images_are_refused(batches):
    with pytest.raises(CalibrationError, match="no calibration images"):
        collect_ranges(batch_sensitive_run, batches)


def test_images_of_two_shapes_are_refused(images):
    with pytest.raises(CalibrationError, match=r"\(9, 6, 3\) after uint8 \(6, 9, 3\)"):
        collect_ranges(batch_sensitive_run, [images[:2], images[:2].swapaxes(1, 2)])
