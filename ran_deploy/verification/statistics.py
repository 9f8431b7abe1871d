"""What a comparison of two classifiers on the same images proves about the accuracy between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError
from ran_deploy.verification.bisection import fewest, root

__all__ = [
    "PairedOutcome",
    "Verdict",
    "decimals",
    "images_needed",
    "judge",
    "mcnemar_p",
    "rounded_up",
    "tango_interval",
]


@dataclass(frozen=True, kw_only=True)
class PairedOutcome:
    """Which of `images` only the reference got right (`lost`) and which only the engine did (`gained`).

    `measure` is the accuracy this is about, `unit` what is counted: pairs of images where those are judged.
    """

    images: int
    lost: int
    gained: int
    measure: str = "Top-1"
    unit: str = "image"

    @property
    def drop_pp(self) -> float:
        """Accuracy lost, in percentage points; negative where the engine is better."""
        return 100 * (self.lost - self.gained) / self.images

    @property
    def drop_ci95_pp(self) -> tuple[float, float]:
        """The 95 % interval of the drop, in percentage points."""
        return self.drop_interval_pp(0.95)

    def drop_interval_pp(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the drop at a `confidence` of 0..1, in percentage points."""
        low, high = tango_interval(self.lost, self.gained, self.images, confidence)
        return 100 * low, 100 * high

    @property
    def mcnemar_p(self) -> float:
        """The exact probability of so uneven a split of lost and gained between equally accurate classifiers."""
        return mcnemar_p(self.lost, self.gained)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a drop is proven to be within the budget, and one sentence that says so.

    `images_needed` is set where the measured drop is within the budget but its upper bound is not.
    """

    passed: bool
    images_needed: int | None
    text: str


def judge(outcome: PairedOutcome, max_drop_pp: float) -> Verdict:
    """Pass if the upper end of the 95 % interval of the drop is within `max_drop_pp`: proven, not just observed.

    The interval is two-sided, so a worse engine passes in at most about 2.5 % of cases.
    Raises: ConfigError for a negative budget or one that is no number.
    """
    if not 0 <= max_drop_pp <= 100:
        raise ConfigError(f"The accuracy budget is {max_drop_pp} points; choose a value in 0..100.")
    low, high = outcome.drop_ci95_pp
    digits = decimals(high, max_drop_pp)
    interval = f"95 % interval {low:+.{digits}f} to {high:+.{digits}f}"
    measured = f"{outcome.measure} drop is {outcome.drop_pp:+.2f} points ({interval})"
    if high <= max_drop_pp:
        text = f"{measured}: the upper bound is within the budget of {max_drop_pp:g}."
        return Verdict(passed=True, images_needed=None, text=text)
    needed = images_needed(outcome, max_drop_pp)
    if low > max_drop_pp:
        reason = f"even the lower bound is beyond the budget of {max_drop_pp:g}"
    elif outcome.drop_pp > max_drop_pp:
        reason = f"it is beyond the budget of {max_drop_pp:g}"
    elif needed is None:
        reason = f"it is at the budget of {max_drop_pp:g}, and no number of {outcome.unit}s proves it is within"
    else:
        reason = (
            f"it is within the budget of {max_drop_pp:g} but {counted(outcome.images, outcome.unit)} cannot prove it; "
            f"about {rounded_up(needed):,} would, if it stays the same"
        )
    return Verdict(passed=False, images_needed=needed, text=f"{measured}: {reason}.")


def decimals(bound: float, limit: float) -> int:
    """Return with how many decimals, from two on, a bound beyond a limit is also seen to be beyond it."""
    return next((n for n in range(2, 9) if bound <= limit or float(f"{bound:.{n}f}") > limit), 9)


def images_needed(outcome: PairedOutcome, max_drop_pp: float, confidence: float = 0.95) -> int | None:
    """Return how many images would bring the upper bound within the budget if the shares lost and gained stay.

    None where the drop itself is not below the budget, or where it would take more than bisection.MOST.
    """
    lost, gained = outcome.lost / outcome.images, outcome.gained / outcome.images

    def resolves(images: int) -> bool:
        return 100 * tango_interval(lost * images, gained * images, images, confidence)[1] <= max_drop_pp

    if outcome.drop_pp >= max_drop_pp:
        return None
    return fewest(resolves, outcome.images)


def tango_interval(lost: float, gained: float, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of the difference (lost - gained) / images between two paired proportions.

    It holds its level in small samples, never leaves -1..1, and has a width even with no discordant pair, where
    the usual normal interval shrinks to a point. Counts may be fractional, for planning.
    Source: Tango 1998, Statistics in Medicine 17, 891-908, equations 8 to 10.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    estimate = (lost - gained) / images

    def score(difference: float) -> float:
        return _tango_score(lost, gained, images, difference)

    return root(lambda d: score(d) - z, -1.0, estimate), root(lambda d: score(d) + z, estimate, 1.0)


def _tango_score(lost: float, gained: float, images: int, difference: float) -> float:
    """Return the standardised distance of the data from a true `difference`; it falls as the difference grows."""
    a = 2 * images
    b = (2 * images - lost + gained) * difference - lost - gained
    c = -gained * difference * (1 - difference)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    # The likeliest share of gained pairs given the difference; of two equal forms the one without cancellation.
    share = (root - b) / (2 * a) if b <= 0 else -2 * c / (root + b)
    variance = images * (2 * share + difference * (1 - difference))
    distance = lost - gained - images * difference
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def mcnemar_p(lost: int, gained: int) -> float:
    """Return the exact two-sided p value of McNemar's test: `lost` out of lost + gained against one half.

    Source: the binomial distribution, both tails; 1 for no discordant pair.
    """
    pairs, fewer = lost + gained, min(lost, gained)
    if 2 * fewer == pairs:
        return 1.0
    log_term = math.lgamma(pairs + 1) - math.lgamma(fewer + 1) - math.lgamma(pairs - fewer + 1) - pairs * math.log(2)
    term = total = math.exp(log_term)
    for k in range(fewer, 0, -1):  # from the largest term of the tail down
        term *= k / (pairs - k + 1)
        total += term
        if term < 1e-18 * total:
            break
    return min(1.0, 2 * total)


def rounded_up(number: int) -> int:
    """Return `number` rounded up to two significant digits: an estimate has no more."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit
