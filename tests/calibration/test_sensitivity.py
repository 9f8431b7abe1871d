"""Order and cost of regions, counted by hand."""

from __future__ import annotations

import pytest

from ran_deploy.calibration.sensitivity import Sensitivity, kept_shares, most_harmful_first


def region(name: str, error: float, multiply_adds: int) -> Sensitivity:
    return Sensitivity(name=name, output_error=error, multiply_adds=multiply_adds)


def test_the_most_harmful_region_comes_first_and_of_equals_the_cheaper():
    regions = [region("gate", 0.01, 1), region("large", 0.3, 90), region("small", 0.3, 9), region("stem", 0.2, 100)]
    assert [r.name for r in most_harmful_first(regions)] == ["small", "large", "stem", "gate"]


def test_the_order_does_not_depend_on_how_regions_come():
    regions = [region(name, 0.1, 5) for name in "cab"]
    assert most_harmful_first(regions) == most_harmful_first(regions[::-1])


def test_shares_grow_from_nothing_to_all():
    assert kept_shares([region("a", 1, 30), region("b", 1, 50), region("c", 1, 20)]) == pytest.approx((0, 0.3, 0.8, 1))


def test_regions_that_compute_nothing_have_no_share():
    assert kept_shares([region("a", 1, 0)]) == (0, 0)
