"""Whether a peer's INT8 is better than ours: paired tests over the test images, all checkpoints together.

Images are what varies independently: the same ones are shown to every checkpoint, so one image counts once, with the
sum over the checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ran_deploy.verification.statistics import mcnemar_p

ALPHA = 0.05  # for each test by itself: correcting for their number would make it harder for a peer to win
RESAMPLES = 2000
BETTER, WORSE, SAME = "better", "worse", "not told apart"
SAME_TIME = 1.02  # a ratio of medians up to this counts as no slower


@dataclass(frozen=True)
class Outputs:
    """Logits (N, classes) of one checkpoint on the test images: FP32's, ours and the peer's, from like evaluators."""

    reference: np.ndarray
    ours: np.ndarray
    peer: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On how many images ours agrees with FP32 more often than the peer (`ours`), and less often (`peer`)."""

    ours: int
    peer: int

    @property
    def p(self) -> float:
        """The exact two-sided probability of so uneven a split between equals: McNemar's test, for one checkpoint."""
        return mcnemar_p(self.ours, self.peer)

    @property
    def peer_is(self) -> str:
        """Whether the peer is significantly better or worse, or not told apart."""
        if self.p >= ALPHA:
            return SAME
        return BETTER if self.peer > self.ours else WORSE


@dataclass(frozen=True, kw_only=True)
class SqnrGain:
    """By how many dB the peer's SQNR is above ours, mean over checkpoints, with the bootstrap's 95 % interval."""

    db: float
    low: float
    high: float

    @property
    def peer_is(self) -> str:
        """Whether the peer is significantly better or worse, or not told apart."""
        if self.low <= 0 <= self.high:
            return SAME
        return BETTER if self.low > 0 else WORSE


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`latency_ratios` are the peer's time over ours, by batch size; empty while nobody has measured them."""

    agreement: Agreement
    sqnr: SqnrGain
    latency_ratios: tuple[float, ...]

    @property
    def claim_holds(self) -> bool | None:
        """Whether the peer is not significantly better at equal or lower latency; None where that is not known yet."""
        if BETTER not in (self.agreement.peer_is, self.sqnr.peer_is):
            return True
        if not self.latency_ratios:
            return None
        return min(self.latency_ratios) > SAME_TIME


def judged(outputs: list[Outputs], latency_ratios: tuple[float, ...] = ()) -> Verdict:
    """Return the verdict over one or more checkpoints."""
    return Verdict(agreement=agreement(outputs), sqnr=sqnr_gain(outputs), latency_ratios=latency_ratios)


def agreement(outputs: list[Outputs]) -> Agreement:
    """Count the images on which one of both keeps FP32's class in more checkpoints than the other."""
    net = np.zeros(len(outputs[0].reference), int)
    for found in outputs:
        expected = found.reference.argmax(axis=1)
        net += (found.ours.argmax(axis=1) == expected).astype(int) - (found.peer.argmax(axis=1) == expected)
    return Agreement(ours=int((net > 0).sum()), peer=int((net < 0).sum()))


def sqnr_gain(outputs: list[Outputs], seed: int = 0) -> SqnrGain:
    """Return the mean over checkpoints of the peer's SQNR minus ours, and its interval over resampled images.

    The energy of the reference is the same in both, so a gain is 10 log10(our error energy / the peer's). Every
    resample takes the same images for all checkpoints. Raises: ValueError if one of both has no error at all.
    """
    ours = np.stack([error_energy(found.reference, found.ours) for found in outputs])  # (checkpoints, N)
    peer = np.stack([error_energy(found.reference, found.peer) for found in outputs])
    if not (ours.any(axis=1).all() and peer.any(axis=1).all()):
        raise ValueError("Outputs equal to FP32's have no SQNR: was a float graph taken for an INT8 one?")
    images = ours.shape[1]
    rng = np.random.default_rng(seed)
    gains = []
    for _ in range(RESAMPLES):
        weights = np.bincount(rng.integers(images, size=images), minlength=images)
        gains.append(mean_gain(ours @ weights, peer @ weights))
    low, high = np.percentile(gains, [2.5, 97.5]).tolist()
    return SqnrGain(db=mean_gain(ours.sum(axis=1), peer.sum(axis=1)), low=low, high=high)


def error_energy(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return the sum of squared errors of each row, float64 (N,)."""
    return ((output.astype(np.float64) - reference.astype(np.float64)) ** 2).sum(axis=1)


def mean_gain(ours: np.ndarray, peer: np.ndarray) -> float:
    """Return the mean over checkpoints of 10 log10(ours / peer), error energies (checkpoints,)."""
    return float(np.mean(10 * np.log10(ours / peer)))
