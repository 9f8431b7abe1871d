"""Two runners of one network over a data set: what the engine loses, where, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import CheckpointError, DatasetError, SelfTestError, ShapeError
from ran_deploy.verification.binomial import clopper_pearson_interval
from ran_deploy.verification.chance import near_chance
from ran_deploy.verification.metrics import ErrorSums, LogitErrors, agreeing, error_sums, logit_errors, top_k_correct
from ran_deploy.verification.statistics import PairedOutcome

__all__ = [
    "Accuracy",
    "ClassCount",
    "ClassTally",
    "Comparison",
    "Disagreement",
    "Infer",
    "Tally",
    "compare",
    "compare_by",
]

WORST = 24  # disagreements that are told of one by one

Infer = Callable[[np.ndarray], np.ndarray]
Result = TypeVar("Result", covariant=True)


class Tally(Protocol[Result]):
    """What is remembered of the outputs (N, size) of reference and engine, batch by batch, and what follows from it."""

    images: int

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None: ...
    def result(self) -> Result: ...


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Accuracies in percent, over labelled images, and their exact 95 % intervals; `outcome` pairs them by image.

    `guessing` is what always giving the most frequent label gets, and `reference_guesses` says that even the reference
    is hardly better than that.
    """

    top1_reference: float
    top1_engine: float
    top5_reference: float
    top5_engine: float
    top1_reference_ci95: tuple[float, float]
    top1_engine_ci95: tuple[float, float]
    outcome: PairedOutcome
    guessing: float
    reference_guesses: bool


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One image to which the two give different classes.

    `margin` is the reference's logit of its own class minus that of the engine's: how much was overturned. The
    confidences are each one's softmax of its own class.
    """

    index: int
    label: int | None
    reference: int
    engine: int
    margin: float
    reference_confidence: float
    engine_confidence: float


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """How many images are of class `source` (a prediction of the reference, or a label) and `target` to the engine."""

    source: int
    target: int
    images: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An engine against its reference on the same images.

    `accuracy` and `confusion` are None without labels. `agreement` is the percentage of images with equal classes.
    `disagreements` are the worst ones, largest margin first, of `disagreement_count`. `flips` count reference class ->
    engine class where they differ, and `confusion` label -> engine class; both list only what occurs, most frequent
    first.
    """

    images: int
    accuracy: Accuracy | None
    agreement: float
    logits: LogitErrors
    disagreement_count: int
    disagreements: tuple[Disagreement, ...]
    flips: tuple[ClassCount, ...]
    confusion: tuple[ClassCount, ...] | None

    @property
    def outcome(self) -> PairedOutcome | None:
        """What a budget is judged by."""
        return self.accuracy.outcome if self.accuracy else None

    @property
    def reference_guesses(self) -> bool:
        """Whether even the reference is hardly better than chance."""
        return self.accuracy is not None and self.accuracy.reference_guesses

    @property
    def worst(self) -> tuple[int, ...]:
        """The images to look at."""
        return tuple(disagreement.index for disagreement in self.disagreements)

    def renumbered(self, indices: Sequence[int]) -> Comparison:
        """Return the same with `indices[i]` as the number of image i."""
        return replace(self, disagreements=tuple(replace(d, index=indices[d.index]) for d in self.disagreements))


def compare(
    reference: Infer,
    engine: Infer,
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    *,
    worst: int = WORST,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Run both on every batch of images (N, H, W, 3) and compare their logits (N, classes).

    Beside each batch come its labels, int (N,), or None; all batches have them or none. Only sums, counts and the
    `worst` disagreements are kept. `progress` hears the number of images done so far.
    Raises: DatasetError for no images, labels on some batches only, or a label that is no class of the network;
    CheckpointError and SelfTestError for logits of the reference and the engine that are not finite.
    """
    return compare_by(ClassTally(worst), reference, engine, batches, progress)


def compare_by(
    tally: Tally[Result],
    reference: Infer,
    engine: Infer,
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    progress: Callable[[int], None] | None = None,
) -> Result:
    """Run both on every batch that holds images, and return what `tally` makes of their outputs; see `compare`."""
    for images, labels in batches:
        if not len(images):
            continue
        expected, found = reference(images), engine(images)
        _check_outputs(expected, found, len(images), tally.images)
        tally.add(expected, found, None if labels is None else np.asarray(labels))
        if progress is not None:
            progress(tally.images)
    if not tally.images:
        raise DatasetError("There are no images to compare on. Give a data set with --data.")
    return tally.result()


def _check_outputs(expected: np.ndarray, found: np.ndarray, images: int, start: int) -> None:
    if expected.ndim != 2 or len(expected) != images or expected.shape != found.shape:
        raise ShapeError(
            f"For {counted(images, 'image')} the reference returns outputs of shape {expected.shape}, "
            f"the engine {found.shape}. They are not of one network: give the checkpoint the bundle was exported from."
        )
    for logits, error, who in ((expected, CheckpointError, "reference"), (found, SelfTestError, "engine")):
        broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
        if len(broken):
            raise error(
                f"The {who}'s outputs of image {start + broken[0]} are NaN or infinite; they mean nothing. "
                f"{'Check the checkpoint.' if who == 'reference' else 'Export with --precision fp32 to compare.'}"
            )


class ClassTally:
    """What is remembered of classes from batch to batch: see `compare`."""

    def __init__(self, worst: int = WORST) -> None:
        self.images = 0
        self.worst = worst
        self.labelled: bool | None = None
        self.errors = ErrorSums()
        self.labels: Counter[int] = Counter()
        self.correct: Counter[str] = Counter()
        self.disagreeing = 0
        self.disagreements: list[Disagreement] = []
        self.flips: Counter[tuple[int, int]] = Counter()
        self.confusion: Counter[tuple[int, int]] = Counter()

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None:
        self._check_labels(labels, *expected.shape)
        self.errors += error_sums(expected, found)
        before, after = expected.argmax(axis=1), found.argmax(axis=1)
        differ = np.flatnonzero(~agreeing(expected, found))
        self.disagreeing += len(differ)
        self.flips.update(zip(before[differ].tolist(), after[differ].tolist(), strict=True))
        self.disagreements += _disagreements(expected, found, labels, differ, self.images)
        self.disagreements = sorted(self.disagreements, key=lambda d: (-d.margin, d.index))[: self.worst]
        if labels is not None:
            self._add_labelled(expected, found, labels)
            self.confusion.update(zip(labels.tolist(), after.tolist(), strict=True))
        self.images += len(expected)

    def _check_labels(self, labels: np.ndarray | None, images: int, classes: int) -> None:
        labelled = labels is not None
        if self.labelled not in (None, labelled):
            raise DatasetError("Some images have labels and some have none; give all of them labels, or none.")
        self.labelled = labelled
        if labels is None:
            return
        if labels.shape != (images,):
            raise DatasetError(
                f"Labels of shape {labels.shape} come with {counted(images, 'image')}; expected ({images},)."
            )
        if labels.min() < 0 or labels.max() >= classes:
            bad = int(labels.max() if labels.max() >= classes else labels.min())
            raise DatasetError(
                f"Label {bad} is no class of this network, which has {classes} (0 to {classes - 1}). "
                f"Validate with the data set it was trained for."
            )

    def _add_labelled(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray) -> None:
        self.labels.update(labels.tolist())
        before, after = top_k_correct(expected, labels, 1), top_k_correct(found, labels, 1)
        self.correct["top1_reference"] += int(before.sum())
        self.correct["top1_engine"] += int(after.sum())
        self.correct["top5_reference"] += int(top_k_correct(expected, labels, 5).sum())
        self.correct["top5_engine"] += int(top_k_correct(found, labels, 5).sum())
        self.correct["lost"] += int((before & ~after).sum())
        self.correct["gained"] += int((after & ~before).sum())

    def result(self) -> Comparison:
        return Comparison(
            images=self.images,
            accuracy=self._accuracy() if self.labelled else None,
            agreement=100 * (self.images - self.disagreeing) / self.images,
            logits=logit_errors(self.errors),
            disagreement_count=self.disagreeing,
            disagreements=tuple(self.disagreements),
            flips=_most_frequent_first(self.flips),
            confusion=_most_frequent_first(self.confusion) if self.labelled else None,
        )

    def _accuracy(self) -> Accuracy:
        def percent(name: str) -> float:
            return 100 * self.correct[name] / self.images

        def interval(name: str) -> tuple[float, float]:
            low, high = clopper_pearson_interval(self.correct[name], self.images)
            return 100 * low, 100 * high

        most_frequent = max(self.labels.values())
        return Accuracy(
            top1_reference=percent("top1_reference"),
            top1_engine=percent("top1_engine"),
            top5_reference=percent("top5_reference"),
            top5_engine=percent("top5_engine"),
            top1_reference_ci95=interval("top1_reference"),
            top1_engine_ci95=interval("top1_engine"),
            outcome=PairedOutcome(images=self.images, lost=self.correct["lost"], gained=self.correct["gained"]),
            guessing=100 * most_frequent / self.images,
            reference_guesses=near_chance(self.correct["top1_reference"], self.images, most_frequent),
        )


def _disagreements(
    expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None, rows: np.ndarray, start: int
) -> Iterator[Disagreement]:
    for row in rows.tolist():
        before, after = int(expected[row].argmax()), int(found[row].argmax())
        yield Disagreement(
            index=start + row,
            label=None if labels is None else int(labels[row]),
            reference=before,
            engine=after,
            margin=float(expected[row, before]) - float(expected[row, after]),
            reference_confidence=_largest_probability(expected[row]),
            engine_confidence=_largest_probability(found[row]),
        )


def _largest_probability(logits: np.ndarray) -> float:
    """Return the softmax probability of the largest of `logits` (classes,)."""
    return float(1 / np.exp(logits.astype(np.float64) - logits.max()).sum())


def _most_frequent_first(counts: Counter[tuple[int, int]]) -> tuple[ClassCount, ...]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ClassCount(source=source, target=target, images=images) for (source, target), images in ordered)
