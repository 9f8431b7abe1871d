"""Do two images show the same? What an engine's similarities answer, by the protocol of Labeled Faces in the Wild."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import DatasetError
from ran_deploy.verification.chance import near_chance
from ran_deploy.verification.statistics import PairedOutcome

__all__ = ["FOLDS", "SameDifferent", "TarAtFar", "best_threshold", "check_pairs", "same_different", "true_accept_rate"]

FOLDS = 10
FALSE_ACCEPT_RATES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, kw_only=True)
class TarAtFar:
    """The true accept rates at one false accept rate, all in percent, each at a threshold of its own."""

    far: float
    reference: float
    engine: float


@dataclass(frozen=True, kw_only=True)
class SameDifferent:
    """Of `pairs`, `same` show the same. Accuracies are in percent; `outcome` pairs them, pair of images by pair.

    `threshold` is the mean over the folds of the least cosine that counts as the same; it is the reference's, for both.
    `tar` has the false accept rates that the number of different pairs can resolve. `guessing` is the accuracy of
    always giving the more frequent answer, and `reference_guesses` says that the reference is hardly better than that.
    """

    pairs: int
    same: int
    threshold: float
    accuracy_reference: float
    accuracy_engine: float
    tar: tuple[TarAtFar, ...]
    outcome: PairedOutcome
    guessing: float
    reference_guesses: bool


def check_pairs(same: np.ndarray) -> None:
    """Raises: DatasetError for fewer pairs than folds, or pairs of one kind only; `same` is bool (P,)."""
    if len(same) < FOLDS or same.all() or not same.any():
        raise DatasetError(
            f"There are {counted(int(same.sum()), 'pair')} of the same and {int((~same).sum()):,} of different; "
            f"at least {FOLDS} in all are needed, and some of both kinds."
        )


def same_different(reference: np.ndarray, engine: np.ndarray, same: np.ndarray) -> SameDifferent:
    """Judge the cosines (P,) of two networks on the same pairs, of which `same`, bool (P,), show the same.

    The pairs are cut into 10 folds in their order. Each fold is judged at the threshold that is best for the reference
    on the other nine; the engine has to do with that one, as it has where it replaces the reference in the field.
    Raises: as `check_pairs`.
    Source: Huang et al. 2007, Labeled Faces in the Wild, UMass Amherst technical report 07-49, section 3.
    """
    check_pairs(same)
    right = np.zeros((2, len(same)), bool)
    thresholds = []
    for fold in np.array_split(np.arange(len(same)), FOLDS):
        others = np.setdiff1d(np.arange(len(same)), fold, assume_unique=True)
        thresholds.append(best_threshold(reference[others], same[others]))
        for row, scores in zip(right, (reference, engine), strict=True):
            row[fold] = (scores[fold] >= thresholds[-1]) == same[fold]
    before, after = right
    more_frequent = max(int(same.sum()), int((~same).sum()))
    return SameDifferent(
        pairs=len(same),
        same=int(same.sum()),
        threshold=float(np.mean(thresholds)),
        accuracy_reference=100 * float(before.mean()),
        accuracy_engine=100 * float(after.mean()),
        tar=_tars(reference, engine, same),
        outcome=PairedOutcome(
            images=len(same),
            lost=int((before & ~after).sum()),
            gained=int((after & ~before).sum()),
            measure="Verification accuracy",
            unit="pair",
        ),
        guessing=100 * more_frequent / len(same),
        reference_guesses=near_chance(int(before.sum()), len(same), more_frequent),
    )


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold at which `scores` >= threshold is most often `same`: the middle of the widest such gap."""
    order = np.argsort(scores, kind="stable")
    ranked, kinds = scores[order], same[order]
    # right[k]: how many are right if the k lowest count as different.
    right = np.concatenate([[0], np.cumsum(~kinds)]) + np.concatenate([np.cumsum(kinds[::-1])[::-1], [0]])
    bounds = np.concatenate([[ranked[0] - 1], ranked, [ranked[-1] + 1]])
    gaps = np.diff(bounds)
    right = np.where(gaps > 0, right, -1)  # equal scores cannot be told apart
    cut = int(np.argmax(np.where(right == right.max(), gaps, -1)))
    return float((bounds[cut] + bounds[cut + 1]) / 2)


def true_accept_rate(scores: np.ndarray, same: np.ndarray, far: float) -> float:
    """Return the share of the same that is accepted where at most the share `far` of the different is: 0..1."""
    different = np.sort(scores[~same])[::-1]
    highest_rejected = different[min(math.floor(far * len(different)), len(different) - 1)]
    return float((scores[same] > highest_rejected).mean())


def _tars(reference: np.ndarray, engine: np.ndarray, same: np.ndarray) -> tuple[TarAtFar, ...]:
    rates = [far for far in FALSE_ACCEPT_RATES if far * int((~same).sum()) >= 1]
    return tuple(
        TarAtFar(
            far=100 * far,
            reference=100 * true_accept_rate(reference, same, far),
            engine=100 * true_accept_rate(engine, same, far),
        )
        for far in rates
    )
