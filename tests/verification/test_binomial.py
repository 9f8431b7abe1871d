from __future__ import annotations

import pytest
from scipy.stats import beta, binom, binomtest

from ran_deploy.verification.binomial import clopper_pearson_interval, clopper_pearson_upper, lower_tail


@pytest.mark.parametrize(
    ("most", "trials", "probability"),
    [(0, 1, 0.5), (3, 20, 0.3), (19, 20, 0.3), (20, 20, 0.3), (2, 100_000, 1e-5), (50_300, 1_000_000, 0.05)],
)
def test_the_lower_tail_is_scipys(most, trials, probability):
    assert lower_tail(most, trials, probability) == pytest.approx(binom.cdf(most, trials, probability), rel=1e-8)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (0, 599), (2, 1342), (60, 512), (511, 512), (50_000, 1_000_000)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_clopper_pearson_bound_is_a_quantile_of_the_beta_distribution(successes, trials, confidence):
    expected = beta.ppf(confidence, successes + 1, trials - successes)
    assert clopper_pearson_upper(successes, trials, confidence) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (3, 20), (478, 512), (9_324, 10_000), (512, 512)])
def test_the_two_sided_interval_is_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_where_all_succeed_the_bound_is_one():
    assert clopper_pearson_upper(7, 7) == 1
