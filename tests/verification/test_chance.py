"""Labels that cannot be meant for a network, or hardly differ, are told from a weak network and from few images."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binom

from ran_deploy.verification.chance import near_chance


@pytest.mark.parametrize(
    ("correct", "images", "most_frequent"),
    [(0, 512, 52), (51, 512, 52), (101, 512, 52), (1, 5000, 5), (0, 8, 1), (100, 200, 100), (0, 20, 10), (60, 200, 67)],
)
def test_what_is_no_better_than_guessing_is(correct, images, most_frequent):
    assert near_chance(correct, images, most_frequent)


@pytest.mark.parametrize(("correct", "most_frequent"), [(1900, 1900), (1925, 1900), (1000, 1900), (1900, 2000)])
def test_always_giving_the_most_frequent_label_is_guessing(correct, most_frequent):
    assert near_chance(correct, 2000, most_frequent)


@pytest.mark.parametrize(
    ("correct", "images", "most_frequent"),
    [(105, 512, 52), (11, 5000, 5), (0, 3, 1), (1, 2, 1), (0, 1, 1), (140, 200, 100), (5, 10, 5), (1950, 2000, 1900)],
)
def test_a_weak_network_or_a_handful_of_images_is_not(correct, images, most_frequent):
    assert not near_chance(correct, images, most_frequent)


@pytest.mark.parametrize("most_frequent", [1, 30, 57, 60])
def test_what_is_always_right_never_guesses(most_frequent):
    assert not near_chance(60, 60, most_frequent)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2])
@pytest.mark.parametrize("images", [1, 7, 20, 59, 400])
def test_so_few_are_right_only_where_the_binomial_tail_is_below_one_percent(images, share):
    most_frequent = math.ceil(share * images)
    chance = most_frequent / (images + 1)
    few = [correct for correct in range(images) if correct / images < min(2 * chance, 0.3 + 0.7 * chance)]
    expected = [bool(binom.cdf(correct, images, (1 + chance) / 2) < 0.01) for correct in few]
    assert [near_chance(correct, images, most_frequent) for correct in few] == expected
