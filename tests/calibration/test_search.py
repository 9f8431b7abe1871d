"""The search against counting by hand, and what it promises against simulated networks that must not get through."""

from __future__ import annotations

import itertools
from statistics import NormalDist

import numpy as np
import pytest

from ran_deploy.calibration.search import confidences, fewest_kept, first_looks


class Looks:
    """A network within the budget from `needed` kept regions on, and what the search looked at."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self.taken: list[tuple[int, float]] = []

    def passes(self, kept: int, confidence: float) -> bool:
        self.taken.append((kept, confidence))
        return kept >= self.needed


@pytest.mark.parametrize("most", [1, 2, 4, 5, 16, 38])
def test_the_fewest_regions_are_found_and_no_number_is_tried_twice(most):
    for needed in range(most + 1):
        looks = Looks(needed)
        assert fewest_kept(lambda: most, looks.passes) == needed
        tried = [kept for kept, _ in looks.taken]
        assert len(set(tried)) == len(tried)


def test_a_network_that_needs_more_than_may_be_kept_is_given_up():
    looks = Looks(21)
    assert fewest_kept(lambda: 20, looks.passes) is None
    assert [kept for kept, _ in looks.taken] == [0, 1, 4, 16, 20]


def test_nothing_is_asked_of_the_regions_where_int8_is_within_the_budget():
    def most() -> int:
        raise AssertionError("asked")

    assert fewest_kept(most, Looks(0).passes) == 0


def test_where_nothing_may_be_kept_there_is_one_look():
    assert list(first_looks(lambda: 0)) == [0]


def test_risks_on_the_way_up_add_up_to_five_percent_and_the_way_down_has_the_one_it_started_from():
    risks = [1 - confidence for confidence in itertools.islice(confidences(), 40)]
    assert sum(risks) == pytest.approx(0.05)
    assert risks[:3] == pytest.approx([0.025, 0.0125, 0.00625])
    looks = Looks(3)
    fewest_kept(lambda: 38, looks.passes)
    assert [kept for kept, _ in looks.taken] == [0, 1, 4, 3, 2]
    assert [1 - confidence for _, confidence in looks.taken[2:]] == pytest.approx([0.00625] * 3)


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_a_network_beyond_the_budget_gets_through_as_seldom_as_in_one_look(shared, rng):
    """The drop of every configuration is exactly the budget: the worst case; the limit is one look's 2.5 %.

    `shared` is how much the measurements have in common, as they are of the same images.
    """
    runs = 10_000
    common = rng.standard_normal((runs, 1))
    measured = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal((runs, 21))

    def gets_through(row: np.ndarray) -> bool:
        def passes(kept: int, confidence: float) -> bool:
            return row[kept] < -NormalDist().inv_cdf(0.5 + confidence / 2)

        return fewest_kept(lambda: 20, passes) is not None

    let_through = sum(map(gets_through, measured))
    assert let_through / runs < 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)
