"""The sequential test against its own promise: simulated, summed over all outcomes, and against a single look."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from ran_deploy.verification.sequential import (
    HIGHER_RATES,
    LOWER_RATES,
    anytime_lower,
    anytime_upper,
    images_until_below,
    log_evidence,
    ruled_out_above,
    ruled_out_below,
)

BATCH = 32


def looks(rng: np.random.Generator, rate: float, images: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many of how many images changed at each look: (runs, looks) and (looks,)."""
    changes = rng.binomial(BATCH, rate, (runs, images // BATCH))
    return changes.cumsum(axis=1), np.arange(BATCH, images + 1, BATCH)


def first_proof(test, changed: np.ndarray, images: np.ndarray, rate: float) -> np.ndarray:
    """Return after how many images each run proves that its rate is on the other side of `rate`: inf for never."""
    stops = np.full(len(changed), np.inf)
    for look in range(len(images)):
        outcomes = {k: test(k, int(images[look]), rate) for k in np.unique(changed[:, look]).tolist()}
        proven = np.vectorize(outcomes.__getitem__)(changed[:, look])
        stops = np.where(proven & np.isinf(stops), images[look], stops)
    return stops


@pytest.mark.parametrize("rate", [0.005, 0.05])
@pytest.mark.parametrize("test", [ruled_out_above, ruled_out_below])
def test_at_the_very_rate_a_false_proof_is_as_rare_as_promised(test, rate, rng):
    changed, images = looks(rng, rate, images=int(60 / rate), runs=4000)
    false = np.isfinite(first_proof(test, changed, images, rate)).mean()
    # Five standard deviations below 5 % would be 3.3 %: the promise is kept with room, and the test is not idle.
    assert 0.01 < false < 0.05


def test_looking_at_clopper_pearson_after_each_batch_would_break_the_promise(rng):
    changed, images = looks(rng, 0.005, images=12_000, runs=2000)
    bounds = beta.ppf(0.95, changed + 1, images - changed)
    assert (bounds < 0.005).any(axis=1).mean() > 0.10


@pytest.mark.parametrize("alternatives", [LOWER_RATES, HIGHER_RATES])
def test_evidence_has_a_mean_of_one_where_the_rate_is_what_is_tested(alternatives):
    images, rate = 60, 0.03
    evidence = [math.exp(log_evidence(changed, images, rate, alternatives)) for changed in range(images + 1)]
    assert np.dot(binom.pmf(np.arange(images + 1), images, rate), evidence) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(("alternatives", "truth"), [(LOWER_RATES, 0.05), (HIGHER_RATES, 0.01)])
def test_evidence_has_a_lower_mean_where_the_rate_is_further_on_the_side_that_is_tested(alternatives, truth):
    images, rate = 60, 0.03
    evidence = [math.exp(log_evidence(changed, images, rate, alternatives)) for changed in range(images + 1)]
    assert np.dot(binom.pmf(np.arange(images + 1), images, truth), evidence) < 1


@pytest.mark.parametrize(("changed", "images"), [(0, 100), (1, 700), (5, 512), (40, 1000), (700, 1000)])
def test_exactly_the_rates_beyond_the_bounds_are_ruled_out(changed, images):
    upper, lower = anytime_upper(changed, images), anytime_lower(changed, images)
    assert lower <= changed / images <= upper
    assert ruled_out_above(changed, images, upper * (1 + 1e-9))
    assert not ruled_out_above(changed, images, upper * (1 - 1e-9))
    if lower:
        assert ruled_out_below(changed, images, lower * (1 - 1e-9))
        assert not ruled_out_below(changed, images, lower * (1 + 1e-9))


def test_with_no_change_the_bound_is_that_of_the_alternative_that_nothing_ever_changes():
    # Its ratio (1 - p)^-n has a share of 0.4, and the other alternatives add to it.
    images = 1000
    at_most = 1 - (0.05 * LOWER_RATES[0][1]) ** (1 / images)
    assert 0.9 * at_most < anytime_upper(0, images) < at_most


@pytest.mark.parametrize(("changed", "images"), [(0, 600), (1, 600), (2, 1342), (10, 2000), (60, 2000), (400, 1000)])
def test_looking_at_any_time_costs_little_against_a_single_look(changed, images):
    once = beta.ppf(0.95, changed + 1, images - changed)
    assert once < anytime_upper(changed, images) < 1.6 * once


def test_where_all_or_none_change_the_bounds_are_the_ends():
    assert anytime_upper(5, 5) == 1
    assert anytime_lower(0, 5) == 0
    assert anytime_lower(5, 5) < 1


@pytest.mark.parametrize(("changed", "images"), [(0, 32), (1, 600), (2, 2000)])
def test_the_images_needed_are_just_enough(changed, images):
    rate = 0.004
    needed = images_until_below(changed, images, rate)
    share = changed / images
    assert needed is not None
    assert ruled_out_above(share * needed, needed, rate)
    assert not ruled_out_above(share * (needed - 1), needed - 1, rate)


@pytest.mark.parametrize(("changed", "images"), [(4, 1000), (9, 1000)])
def test_a_share_at_or_above_the_rate_never_proves_that_it_is_below(changed, images):
    assert images_until_below(changed, images, 0.004) is None
