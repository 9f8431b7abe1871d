from __future__ import annotations

import math

import pytest

from ran_deploy.verification.bisection import MOST, fewest, root


def test_the_root_of_a_falling_function_is_found_to_the_last_digits():
    assert root(lambda x: 2 - x * x, 0, 2) == pytest.approx(math.sqrt(2), rel=1e-15)


@pytest.mark.parametrize(("low", "high", "nearer"), [(3, 5, 3), (-1, 1, 1)])
def test_without_a_root_between_the_ends_the_nearer_one_is_returned(low, high, nearer):
    assert root(lambda x: 2 - x, low, high) == nearer


@pytest.mark.parametrize("least", [1, 2, 99, 100, 101, 12_345])
@pytest.mark.parametrize("start", [1, 100])
def test_the_fewest_that_suffice_are_found_from_below_and_from_above(least, start):
    assert fewest(lambda number: number >= least, start) == least


def test_what_no_number_suffices_for_has_no_fewest():
    assert fewest(lambda number: number > 2 * MOST, 7) is None
