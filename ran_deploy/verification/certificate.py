"""What images without labels prove about accuracy: it cannot drop by more than classes change.

On one image, [the reference is right] - [the engine is right] is 0 where both give the same class, whatever the label,
and at most 1 where they do not. The accuracy drop is the mean of this over all images, so it is at most the share of
images that change their class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ran_deploy.counts import counted
from ran_deploy.verification.binomial import clopper_pearson_upper
from ran_deploy.verification.sequential import (
    CONFIDENCE,
    anytime_lower,
    anytime_upper,
    images_until_below,
    ruled_out_above,
    ruled_out_below,
)
from ran_deploy.verification.statistics import rounded_up

__all__ = ["Certificate", "bound_so_far", "certify", "is_decided"]

ASSUMPTIONS = (
    "The images are an independent random sample of those the engine will meet: no neighbouring frames of one scene, "
    "none picked by hand.",
    "Neither the images nor the seed of their order were chosen after seeing results.",
)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What `images` of the `available` ones prove, taken in the random order that `seed` gives.

    With a probability of `confidence_percent` at most `bound_percent` of images like these change their class, so top-1
    drops by at most as many points; and at least `at_least_percent` change it. `proven` is None without a budget.
    `anytime` says that the bound holds however often one looked; otherwise there was one look, at all images.
    `images_needed` is how many images in all would prove the budget if the observed share stays, where it is below.
    """

    images: int
    available: int
    changed: int
    seed: int
    confidence_percent: float
    bound_percent: float
    at_least_percent: float
    anytime: bool
    max_drop_pp: float | None
    proven: bool | None
    images_needed: int | None
    text: str
    assumptions: tuple[str, ...] = ASSUMPTIONS

    @property
    def at_most(self) -> str:
        """The bound as it is written: rounded up, but not beyond a budget that is proven."""
        bound = _rounded(self.bound_percent, math.ceil)
        if self.proven and self.max_drop_pp is not None and float(bound) > self.max_drop_pp:
            return f"{self.max_drop_pp:g}"
        return bound


def is_decided(changed: int, images: int, max_drop_pp: float) -> bool:
    """Say whether more images are of no use: the budget is proven, or more than it is shown to change."""
    rate = max_drop_pp / 100
    return ruled_out_above(changed, images, rate) or ruled_out_below(changed, images, rate)


def bound_so_far(changed: int, images: int) -> str:
    """Return what is shown after so many images, however often one looks."""
    return f"{changed:,} changed, at most {_rounded(100 * anytime_upper(changed, images), math.ceil)} %"


def certify(changed: int, images: int, *, available: int, seed: int, max_drop_pp: float | None) -> Certificate:
    """Judge that `changed` of `images` changed their class, out of `available` ones in random order.

    With a budget, in (0, 100), the test may have looked at any time. Without one all images count, and there was one
    look: the exact binomial bound holds and is smaller.
    """
    anytime = max_drop_pp is not None
    upper = anytime_upper(changed, images) if anytime else clopper_pearson_upper(changed, images, CONFIDENCE)
    proven = None if max_drop_pp is None else ruled_out_above(changed, images, max_drop_pp / 100)
    certificate = Certificate(
        images=images,
        available=available,
        changed=changed,
        seed=seed,
        confidence_percent=100 * CONFIDENCE,
        bound_percent=100 * upper,
        at_least_percent=100 * anytime_lower(changed, images),
        anytime=anytime,
        max_drop_pp=max_drop_pp,
        proven=proven,
        images_needed=None if max_drop_pp is None or proven else images_until_below(changed, images, max_drop_pp / 100),
        text="",
    )
    return replace(certificate, text=_text(certificate))


def _text(certificate: Certificate) -> str:
    images, budget = certificate.images, certificate.max_drop_pp
    bound = certificate.at_most
    every = "all " if images == certificate.available and images > 1 else ""
    found = (
        f"After {every}{counted(images, 'image')} (order by seed {certificate.seed}) {certificate.changed:,} "
        f"{'changes' if certificate.changed == 1 else 'change'} class; with {certificate.confidence_percent:g} % "
        f"confidence at most {bound} % of images like these do, so top-1 accuracy drops by at most {bound} points"
    )
    if budget is None:
        return f"{found}; no budget was set (--max-drop)."
    if certificate.proven:
        return f"{found}: the budget of {budget:g} is proven."
    return f"{found}. The budget of {budget:g} is not proven: {_why_not(certificate, budget)}"


def _why_not(certificate: Certificate, max_drop_pp: float) -> str:
    share = 100 * certificate.changed / certificate.images
    if certificate.images_needed is not None:
        more = rounded_up(certificate.images_needed - certificate.images)
        condition = f"the share that changes stays {share:.2g} %" if certificate.changed else "still none changes class"
        return f"about {more:,} more images would do, if {condition}."
    # Images lost and gained cancel in the drop, but without labels nothing tells one from the other.
    labels = "Labelled images may still show that it holds (--data)."
    if certificate.at_least_percent >= max_drop_pp:
        least = _rounded(certificate.at_least_percent, math.floor)
        return f"with the same confidence more than {least} % change. {labels}"
    return f"{share:.2g} % of these change, and at that share no number of images proves it. {labels}"


def _rounded(percent: float, rounding: Callable[[float], int]) -> str:
    """Return a bound with two decimals, more if it is small, rounded to the side on which it still holds."""
    digits = 2 if percent >= 0.1 or percent == 0 else 1 - math.floor(math.log10(percent))
    return f"{rounding(percent * 10**digits) / 10**digits:.{digits}f}"
