"""How far ranges moved, against ratios worked out by hand."""

from __future__ import annotations

import pytest

from ran_deploy.calibration import describe_stability, has_settled, range_changes
from ran_deploy.calibration.collect import halvings
from ran_deploy.manifest import RangeChange


def test_each_doubling_has_its_median_and_its_worst_tensor():
    ranges = {
        8: {"a": 1.0, "b": 4.0, "c": 0.0},
        16: {"a": 2.0, "b": 5.0, "c": 0.0},
        32: {"a": 2.0, "b": 4.0, "c": 3.0},
    }
    assert range_changes(ranges) == (
        RangeChange(images_before=8, images=16, median=pytest.approx(0.2), worst=0.5, worst_tensor="a"),
        RangeChange(images_before=16, images=32, median=pytest.approx(0.25), worst=1.0, worst_tensor="c"),
    )


def test_one_number_of_images_tells_nothing():
    assert range_changes({7: {"a": 1.0}}) == ()


@pytest.mark.parametrize(
    ("images", "parts"), [(512, (64, 128, 256)), (100, (8, 24, 48)), (32, (8, 16)), (16, (8,)), (15, ()), (1, ())]
)
def test_parts_are_whole_micro_batches(images, parts):
    assert halvings(images) == parts


def change(median: float, worst: float) -> RangeChange:
    return RangeChange(images_before=256, images=512, median=median, worst=worst, worst_tensor="relu_9")


def test_settled_ranges_are_said_to_be():
    assert has_settled(change(0.004, 0.03))
    assert describe_stability(change(0.004, 0.03)) == (
        "ranges settled: going from 256 to 512 images moved them by 0.4 % (median), 3 % at most"
    )


@pytest.mark.parametrize("moved", [change(0.2, 0.3), change(0.01, 0.7)])
def test_unsettled_ranges_name_the_worst_tensor_and_the_option(moved):
    assert not has_settled(moved)
    assert "have not settled" in describe_stability(moved)
    assert "'relu_9'" in describe_stability(moved)
    assert "--calibration-images" in describe_stability(moved)
