from __future__ import annotations

import math

import pytest

from ran_deploy.verification.divergence import alone_limit, first_beyond, first_that, scan


def test_alone_limit_is_a_share_that_adds_up_to_the_tolerance():
    assert math.hypot(*[alone_limit([0.0] * 9, 0.06)] * 9) == pytest.approx(0.06)


def test_alone_limit_of_many_regions_is_not_below_what_healthy_ones_have():
    assert alone_limit([0.0] * 400, 0.03) == 0.005


def test_alone_limit_follows_an_engine_that_is_coarse_everywhere():
    assert alone_limit([0.004, 0.005, 0.003, math.nan, 0.9] * 20, 0.03) == pytest.approx(5 * 0.0045)


def test_alone_limit_never_exceeds_what_the_whole_may_have():
    assert alone_limit([0.0, 0.4, 0.4], 0.03) == 0.03


def test_alone_limit_without_any_region_is_the_tolerance():
    assert alone_limit([], 0.03) == 0.03
    assert alone_limit([math.nan], 0.03) == 0.03


def test_first_beyond_stops_at_the_first():
    asked = []

    def error_of(name: str) -> float:
        asked.append(name)
        return {"a": 0.1, "b": math.nan, "c": math.inf, "d": 9.0}[name]

    assert first_beyond("abcd", error_of, 0.1) == ("c", math.inf)
    assert asked == ["a", "b", "c"]


def test_first_beyond_of_what_is_within_the_limit_is_none():
    assert first_beyond([1.0, 2.0], float, 2.0) is None


@pytest.mark.parametrize("cuts", [1, 2, 7, 23, 24, 25, 61])
@pytest.mark.parametrize("samples", [1, 5, 24])
def test_scan_finds_where_a_lasting_error_begins(cuts, samples):
    for onset in range(cuts):
        found = scan(cuts, lambda index, onset=onset: 1.0 if index >= onset else 0.001 * index, 0.5, samples=samples)
        assert found.first == onset
        assert all((error > 0.5) == (index >= onset) for index, error in found.errors.items())
        assert list(found.errors) == sorted(found.errors)


def test_scan_evaluates_no_cut_twice_and_few_of_a_healthy_line():
    asked = []

    def error_of(index: int) -> float:
        asked.append(index)
        return 0.0

    found = scan(100, error_of, 0.5, samples=10)
    assert found.first is None
    assert sorted(asked) == sorted(found.errors) == list(range(9, 100, 10))


def test_scan_of_no_cuts_finds_nothing():
    assert scan(0, float, 0.5, samples=3).first is None


def test_first_that_asks_no_further_than_needed():
    assert first_that(iter([1, 4, 9]), lambda n: n > 3) == 4
    assert first_that([1, 2], lambda n: n > 3) is None
