"""Intervals and tests for paired classifiers, against SciPy and published examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest, norm

from ran_deploy.errors import ConfigError
from ran_deploy.verification.statistics import (
    PairedOutcome,
    images_needed,
    judge,
    mcnemar_p,
    tango_interval,
)

CASES = [(7, 1, 21), (16, 6, 161), (12, 2, 50), (0, 5, 40), (3, 3, 30), (40, 20, 160), (61, 59, 10_000), (1, 0, 10)]


def score_by_profile_likelihood(lost: int, gained: int, images: int, difference: float) -> float:
    """Standardise by the variance at the likeliest (p_lost, p_gained) with p_lost - p_gained = difference."""

    def loss(p_gained: float) -> float:
        shares = (p_gained + difference, p_gained, 1 - 2 * p_gained - difference)
        counts = (lost, gained, images - lost - gained)
        if min(shares) < 0:
            return math.inf
        return -sum(n * math.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    p = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return (lost - gained - images * difference) / math.sqrt(images * (2 * p + difference - difference**2))


@pytest.mark.parametrize(("lost", "gained", "images"), CASES)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_tango_interval_inverts_the_score_test(lost, gained, images, confidence):
    z, estimate = norm.ppf(0.5 + confidence / 2), (lost - gained) / images
    low, high = tango_interval(lost, gained, images, confidence)
    step = 1e-9
    bounds = ((z, -1 + step, estimate - step), (-z, estimate + step, 1 - step))
    expected = [
        brentq(lambda d, at=at: score_by_profile_likelihood(lost, gained, images, d) - at, left, right)
        for at, left, right in bounds
    ]
    np.testing.assert_allclose([low, high], expected, atol=2e-6)


def test_tango_interval_gives_published_bounds():
    # Complete response before and after consolidation therapy (Cavo et al. 2012), bounds as the tests of the R package
    # contingencytables have them, where the difference has the other sign.
    assert tango_interval(16, 6, 161) == pytest.approx((0.0054, 0.1240), abs=5e-5)


def test_with_no_discordant_pair_the_interval_still_has_a_width():
    # The score equation becomes n d = z^2 (1 - d), so d = z^2 / (n + z^2).
    z2 = norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, 1000) == pytest.approx((-z2 / (1000 + z2), z2 / (1000 + z2)), rel=1e-12)


def test_the_interval_turns_round_with_its_classifiers():
    low, high = tango_interval(9, 4, 77)
    assert tango_interval(4, 9, 77) == pytest.approx((-high, -low), rel=1e-12)


@pytest.mark.parametrize(("lost", "gained"), [(10, 0), (0, 10)])
def test_the_interval_stays_within_one_when_every_pair_is_discordant(lost, gained):
    low, high = tango_interval(lost, gained, 10)
    assert -1 <= low < high <= 1
    assert (high if lost else -low) == pytest.approx(1)


def test_the_interval_holds_its_level_in_simulation(rng):
    p_lost, p_gained, images = 0.012, 0.008, 500
    draws = rng.multinomial(images, [p_lost, p_gained, 1 - p_lost - p_gained], size=3000)
    counts, times = np.unique(draws[:, :2], axis=0, return_counts=True)
    missed = sum(
        int(n)
        for (lost, gained), n in zip(counts.tolist(), times, strict=True)
        if not (lambda ci: ci[0] <= p_lost - p_gained <= ci[1])(tango_interval(lost, gained, images))
    )
    assert 0.03 < missed / 3000 < 0.065


@pytest.mark.parametrize(
    ("lost", "gained"), [(0, 0), (1, 0), (0, 6), (5, 5), (3, 11), (61, 59), (480, 390), (5000, 5400), (0, 900)]
)
def test_mcnemar_is_the_binomial_test(lost, gained):
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar_p(lost, gained) == pytest.approx(expected, rel=1e-9)


def test_drop_is_in_percentage_points_and_positive_when_the_engine_is_worse():
    outcome = PairedOutcome(images=400, lost=5, gained=2)
    assert outcome.drop_pp == 0.75
    low, high = tango_interval(5, 2, 400)
    assert outcome.drop_ci95_pp == (100 * low, 100 * high)


def test_the_upper_bound_decides_not_the_estimate():
    outcome = PairedOutcome(images=512, lost=2, gained=2)
    high = outcome.drop_ci95_pp[1]
    assert outcome.drop_pp == 0 < high
    assert judge(outcome, high + 1e-6).passed
    verdict = judge(outcome, high - 1e-6)
    assert not verdict.passed
    assert verdict.images_needed is not None


def test_the_images_needed_are_just_enough():
    outcome = PairedOutcome(images=512, lost=3, gained=2)
    needed = images_needed(outcome, 0.5)
    assert needed is not None
    assert needed > 512
    upper = [100 * tango_interval(3 / 512 * n, 2 / 512 * n, n)[1] for n in (needed - 1, needed)]
    assert upper[1] <= 0.5 < upper[0]
    # In the limit of many pairs the bound is drop + z * sqrt(share of discordant pairs / images).
    wald = norm.ppf(0.975) ** 2 * (5 / 512) / (0.005 - 1 / 512) ** 2
    assert needed == pytest.approx(wald, rel=0.15)


def test_an_unresolved_drop_says_how_many_images_would_resolve_it():
    verdict = judge(PairedOutcome(images=512, lost=0, gained=0), 0.3)
    assert not verdict.passed
    z2 = norm.ppf(0.975) ** 2
    assert verdict.images_needed == math.ceil(z2 * (1 - 0.003) / 0.003)
    assert "512 images cannot prove it; about 1,300 would" in verdict.text


@pytest.mark.parametrize(("lost", "reason"), [(30, "even the lower bound is beyond"), (9, "it is beyond")])
def test_a_drop_beyond_the_budget_is_not_saved_by_images(lost, reason):
    verdict = judge(PairedOutcome(images=1000, lost=lost, gained=2), 0.5)
    assert (verdict.passed, verdict.images_needed) == (False, None)
    assert reason in verdict.text


def test_a_bound_just_beyond_the_budget_is_not_rounded_to_it():
    outcome = PairedOutcome(images=764, lost=0, gained=0)  # z^2 / (764 + z^2) is 0.5003 %
    assert "(95 % interval -0.5003 to +0.5003): it is within the budget of 0.5 but" in judge(outcome, 0.5).text
    assert "(95 % interval -0.50 to +0.50): the upper bound is" in judge(replace(outcome, images=765), 0.5).text
    assert "+0.5003" not in judge(outcome, 0.4).text


def test_a_drop_exactly_at_the_budget_cannot_be_resolved():
    verdict = judge(PairedOutcome(images=1000, lost=5, gained=0), 0.5)
    assert (verdict.passed, verdict.images_needed) == (False, None)
    assert "no number of images" in verdict.text


def test_a_better_engine_passes_a_budget_of_zero():
    assert judge(PairedOutcome(images=1000, lost=1, gained=30), 0.0).passed


@pytest.mark.parametrize("budget", [-0.1, float("nan"), 101.0])
def test_a_budget_that_makes_no_sense_is_refused(budget):
    with pytest.raises(ConfigError, match=r"choose a value in 0\.\.100"):
        judge(PairedOutcome(images=10, lost=0, gained=0), budget)
