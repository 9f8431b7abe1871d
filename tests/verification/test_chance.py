"""Labels that cannot be meant for a network are told from a weak network and from few images."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from ran_deploy.verification.chance import near_chance


@pytest.mark.parametrize(
    ("correct", "images", "classes"),
    [(0, 512, 10), (51, 512, 10), (101, 512, 10), (1, 5000, 1000), (0, 8, 10), (100, 200, 2), (0, 20, 2), (60, 200, 3)],
)
def test_what_is_no_better_than_guessing_is(correct, images, classes):
    assert near_chance(correct, images, classes)


@pytest.mark.parametrize(
    ("correct", "images", "classes"),
    [(103, 512, 10), (11, 5000, 1000), (0, 3, 10), (1, 2, 10), (140, 200, 2), (5, 10, 2), (30, 30, 10), (0, 100, 1)],
)
def test_a_weak_network_a_handful_of_images_or_a_single_class_is_not(correct, images, classes):
    assert not near_chance(correct, images, classes)


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("images", [1, 7, 20, 59, 400])
def test_so_few_are_right_only_where_the_binomial_tail_is_below_one_percent(images, classes):
    few = [correct for correct in range(images) if correct / images < 2 / classes]
    expected = [bool(binom.cdf(correct, images, (1 + 1 / classes) / 2) < 0.01) for correct in few]
    assert [near_chance(correct, images, classes) for correct in few] == expected
