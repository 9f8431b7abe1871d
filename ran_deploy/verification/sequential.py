"""Bounds of a rate that hold at every look: a test of how often something happens that may stop at any time.

Each image changes its class, independently of the others, with the same unknown probability `rate`. For a rate p that
is to be ruled out and an alternative q, the likelihood ratio after k changes in n images,

    L(q) = (q / p)^k ((1 - q) / (1 - p))^(n - k),

is multiplied by each further image by a factor whose mean is 1 + (rate - p) (q - p) / (p (1 - p)): at most 1 wherever
rate >= p > q, and wherever rate <= p < q. So is any average of such ratios over alternatives that were fixed
beforehand: the evidence, a non-negative supermartingale that starts at 1. By Ville's inequality it ever reaches 20,
however often one looks, with a probability of at most 1 / 20. Alternatives are fixed multiples q = c p; each ratio is
then monotone in p, rising for c < 1 and falling for c > 1, so the rates that are ruled out lie beyond one bound.

Sources: Ville 1939, Etude critique de la notion de collectif; Robbins 1970, Annals of Mathematical Statistics 41,
1397-1409 (mixtures); Howard et al. 2021, arXiv:1810.08240, and Waudby-Smith and Ramdas 2024, arXiv:2010.09686 (bounds
from such tests).
"""

from __future__ import annotations

import math

from ran_deploy.verification.bisection import fewest, root

__all__ = [
    "CONFIDENCE",
    "anytime_lower",
    "anytime_upper",
    "images_until_below",
    "ruled_out_above",
    "ruled_out_below",
]

CONFIDENCE = 0.95

# Multiples of the rate to be ruled out, each with its share of the evidence. Chosen by the images needed at true rates
# of 0, a quarter and a half of it: benchmarks/sequential_tests.py compares others.
LOWER_RATES = ((0.0, 0.4), (0.25, 0.25), (0.5, 0.2), (0.75, 0.15))
HIGHER_RATES = ((1.25, 0.25), (2.0, 0.25), (4.0, 0.25), (16.0, 0.25))  # only to stop where nothing can be proven

Alternatives = tuple[tuple[float, float], ...]


def log_evidence(changed: float, images: float, rate: float, alternatives: Alternatives) -> float:
    """Return the logarithm of the evidence against `rate`, in (0, 1); counts may be fractional, for planning."""
    logs = [
        math.log(share)
        + _log_power(multiple, changed)
        + _log_power((1 - multiple * rate) / (1 - rate), images - changed)
        for multiple, share in alternatives
    ]
    largest = max(logs)
    return largest if largest == -math.inf else largest + math.log(sum(math.exp(log - largest) for log in logs))


def _log_power(base: float, exponent: float) -> float:
    """Return log(base ** exponent) for an exponent of at least 0; an alternative above 1 is none, so counts as 0."""
    if exponent == 0:
        return 0.0
    return exponent * math.log(base) if base > 0 else -math.inf


def ruled_out_above(changed: float, images: float, rate: float, confidence: float = CONFIDENCE) -> bool:
    """Say whether the true rate is shown to be below `rate`."""
    return log_evidence(changed, images, rate, LOWER_RATES) >= -math.log1p(-confidence)


def ruled_out_below(changed: float, images: float, rate: float, confidence: float = CONFIDENCE) -> bool:
    """Say whether the true rate is shown to be above `rate`."""
    return log_evidence(changed, images, rate, HIGHER_RATES) >= -math.log1p(-confidence)


def anytime_upper(changed: int, images: int, confidence: float = CONFIDENCE) -> float:
    """Return the bound that the true rate is below, at all looks together with a probability of `confidence`."""
    if changed >= images:
        return 1.0
    threshold = -math.log1p(-confidence)
    low, high = max(changed / images, 1e-15), 1 - 1e-15
    return root(lambda rate: threshold - log_evidence(changed, images, rate, LOWER_RATES), low, high)


def anytime_lower(changed: int, images: int, confidence: float = CONFIDENCE) -> float:
    """Return the bound that the true rate is above, at all looks together with a probability of `confidence`."""
    if not changed:
        return 0.0
    threshold = -math.log1p(-confidence)
    low, high = 1e-15, min(changed / images, 1 - 1e-15)
    bound = root(lambda rate: log_evidence(changed, images, rate, HIGHER_RATES) - threshold, low, high)
    return 0.0 if bound == low else bound


def images_until_below(changed: int, images: int, rate: float, confidence: float = CONFIDENCE) -> int | None:
    """Return after how many images in all `rate` would be ruled out if the share that changes stays as it is.

    None where that share is not below `rate`, or where it would take more than bisection.MOST.
    """
    share = changed / images
    if share >= rate:
        return None
    return fewest(lambda total: ruled_out_above(share * total, total, rate, confidence), images)
