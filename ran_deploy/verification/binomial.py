"""Tails of the binomial distribution, and the exact bound of Clopper and Pearson that follows from them."""

from __future__ import annotations

import math

import numpy as np

from ran_deploy.verification.bisection import root

__all__ = ["clopper_pearson_interval", "clopper_pearson_upper", "lower_tail"]


def lower_tail(most: int, trials: int, probability: float) -> float:
    """Return the probability of at most `most` successes, for 0 < probability < 1.

    Logarithms, as single terms leave the range of floats; each term follows from the one above it.
    """
    log_hit, log_miss = math.log(probability), math.log1p(-probability)
    log_choices = math.lgamma(trials + 1) - math.lgamma(most + 1) - math.lgamma(trials - most + 1)
    successes = np.arange(most, 0, -1)
    steps = np.log(successes) - np.log(trials - successes + 1) + log_miss - log_hit
    logs = log_choices + most * log_hit + (trials - most) * log_miss + np.concatenate([[0.0], np.cumsum(steps)])
    return min(1.0, float(np.exp(logs).sum()))


def clopper_pearson_upper(successes: int, trials: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a rate: larger ones give so few successes with at most 1 - `confidence`.

    It holds its level exactly where the number of trials does not depend on their outcome.
    Source: Clopper and Pearson 1934, Biometrika 26, 404-413.
    """
    if successes >= trials:
        return 1.0
    return root(
        lambda rate: lower_tail(successes, trials, rate) - (1 - confidence), successes / trials or 1e-300, 1 - 1e-15
    )


def clopper_pearson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate: an upper bound of successes, and one of failures."""
    one_sided = 0.5 + confidence / 2
    low = 1 - clopper_pearson_upper(trials - successes, trials, one_sided)
    return low, clopper_pearson_upper(successes, trials, one_sided)
