"""Is a classifier so near guessing that its labels cannot be meant for it?"""

from __future__ import annotations

import math

__all__ = ["near_chance"]

TIMES_CHANCE = 2
ABOVE_CHANCE = 0.15  # bounds it for few classes: twice chance is all there is for two
UNLIKELY = 0.01


def near_chance(correct: int, images: int, classes: int) -> bool:
    """Say whether `correct` of `images` is so few that labels or pre-processing are likelier wrong than the network.

    That is below twice chance, which is 1 / classes, or within 15 points of it; and so few that a network halfway
    between chance and perfect would get no more with a probability below 1 %: a handful of images proves nothing.
    Source: the lower tail of the binomial distribution.
    """
    chance = 1 / classes
    if classes < 2 or correct >= images * min(TIMES_CHANCE * chance, chance + ABOVE_CHANCE):
        return False
    return _lower_tail(correct, images, (1 + chance) / 2) < UNLIKELY


def _lower_tail(most: int, trials: int, probability: float) -> float:
    """Return the probability of at most `most` successes; logarithms, as single terms leave the range of floats."""
    log_hit, log_miss = math.log(probability), math.log1p(-probability)
    return sum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * log_hit
            + (trials - k) * log_miss
        )
        for k in range(most + 1)
    )
