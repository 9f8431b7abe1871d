"""Is a network so near guessing that its accuracy shows nothing?"""

from __future__ import annotations

from ran_deploy.verification.binomial import lower_tail

__all__ = ["near_chance"]

TIMES_CHANCE = 2
TOWARDS_PERFECT = 0.3  # bounds it where chance is high: twice chance is all there is for two equal classes
UNLIKELY = 0.01


def near_chance(correct: int, images: int, most_frequent: int) -> bool:
    """Say whether `correct` of `images` is little more than always giving the most frequent label would get right.

    Chance is the share of that label, which `most_frequent` of the images have: 1 / classes where data is balanced.
    Little more is below twice chance, and less than 30 % of the way from chance to perfect; and so few that a network
    halfway there would get no more with a probability below 1 %: a handful of images proves nothing.
    Source: the lower tail of the binomial distribution.
    """
    chance = most_frequent / (images + 1)  # one label alone shows nothing of the others: as if one more had another
    if correct >= images * min(TIMES_CHANCE * chance, chance + TOWARDS_PERFECT * (1 - chance)):
        return False
    return lower_tail(correct, images, (1 + chance) / 2) < UNLIKELY
