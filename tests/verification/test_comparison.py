"""Comparison against counting by hand with NumPy, and the same however images are batched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binomtest

from ran_deploy.errors import CheckpointError, DatasetError, SelfTestError, ShapeError
from ran_deploy.verification.comparison import Comparison, compare

CLASSES, IMAGES = 6, 57


class Recorded:
    """Logits of images 0..N-1, looked up by the number that is written into each image."""

    def __init__(self, logits: np.ndarray) -> None:
        self.logits = logits

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.logits[images[:, 0, 0, 0]]


@pytest.fixture
def images() -> np.ndarray:
    return np.broadcast_to(np.arange(IMAGES, dtype=np.uint8)[:, None, None, None], (IMAGES, 4, 5, 3))


@pytest.fixture
def logits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    reference = rng.standard_normal((IMAGES, CLASSES)).astype(np.float32)
    return reference, reference + 0.5 * rng.standard_normal((IMAGES, CLASSES)).astype(np.float32)


@pytest.fixture
def labels(rng: np.random.Generator, logits) -> np.ndarray:
    guesses = rng.integers(0, CLASSES, IMAGES)
    return np.where(rng.random(IMAGES) < 0.7, logits[0].argmax(axis=1), guesses)


def batched(images: np.ndarray, labels: np.ndarray | None, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    for start in range(0, len(images), size):
        yield images[start : start + size], None if labels is None else labels[start : start + size]


def compared(images, logits, labels, size: int = 10, **options) -> Comparison:
    return compare(Recorded(logits[0]), Recorded(logits[1]), batched(images, labels, size), **options)


def test_accuracies_and_pairs_are_those_counted_by_hand(images, logits, labels):
    accuracy = compared(images, logits, labels).accuracy
    right = [array.argmax(axis=1) == labels for array in logits]
    assert accuracy.top1_reference == pytest.approx(100 * right[0].mean())
    assert accuracy.top1_engine == pytest.approx(100 * right[1].mean())
    intervals = (accuracy.top1_reference_ci95, accuracy.top1_engine_ci95)
    for interval, correct in zip(intervals, right, strict=True):
        expected = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="exact")
        assert interval == pytest.approx((100 * expected.low, 100 * expected.high))
    in_five = [(np.argsort(array, axis=1)[:, 1:] == labels[:, None]).any(axis=1).mean() for array in logits]
    assert (accuracy.top5_reference, accuracy.top5_engine) == pytest.approx((100 * in_five[0], 100 * in_five[1]))
    assert accuracy.outcome.lost == (right[0] & ~right[1]).sum() > 0
    assert accuracy.outcome.gained == (right[1] & ~right[0]).sum() > 0
    assert accuracy.outcome.drop_pp == pytest.approx(accuracy.top1_reference - accuracy.top1_engine)


def test_agreement_flips_and_confusion_are_those_counted_by_hand(images, logits, labels):
    result = compared(images, logits, labels)
    before, after = (array.argmax(axis=1) for array in logits)
    assert result.agreement == pytest.approx(100 * (before == after).mean())
    assert result.disagreement_count == (before != after).sum() > 3
    flips = np.zeros((CLASSES, CLASSES), int)
    np.add.at(flips, (before, after), before != after)
    assert {(c.source, c.target): c.images for c in result.flips} == {
        (i, j): n for (i, j), n in np.ndenumerate(flips) if n
    }
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (labels, after), 1)
    assert {(c.source, c.target): c.images for c in result.confusion} == {
        (i, j): n for (i, j), n in np.ndenumerate(confusion) if n
    }
    assert [c.images for c in result.flips] == sorted((c.images for c in result.flips), reverse=True)


def test_disagreements_name_the_image_both_classes_and_confidences(images, logits, labels):
    result = compared(images, logits, labels, worst=IMAGES)
    before, after = (array.argmax(axis=1) for array in logits)
    assert sorted(d.index for d in result.disagreements) == np.flatnonzero(before != after).tolist()
    softmax = [np.exp(array) / np.exp(array).sum(axis=1, keepdims=True) for array in logits]
    for d in result.disagreements:
        assert (d.reference, d.engine, d.label) == (before[d.index], after[d.index], labels[d.index])
        assert d.margin == pytest.approx(logits[0][d.index, d.reference] - logits[0][d.index, d.engine])
        assert d.reference_confidence == pytest.approx(softmax[0][d.index].max())
        assert d.engine_confidence == pytest.approx(softmax[1][d.index].max())


def test_only_the_worst_disagreements_are_kept(images, logits, labels):
    everything, capped = compared(images, logits, labels), compared(images, logits, labels, worst=3)
    assert capped.disagreements == everything.disagreements[:3]
    assert capped.disagreement_count == everything.disagreement_count > 3
    margins = [d.margin for d in everything.disagreements]
    assert margins == sorted(margins, reverse=True)


@pytest.mark.parametrize("size", [1, 7, IMAGES])
def test_batching_changes_nothing_but_the_order_of_sums(images, logits, labels, size):
    one, other = compared(images, logits, labels), compared(images, logits, labels, size=size)
    assert other.accuracy == one.accuracy
    assert (other.disagreements, other.flips, other.confusion) == (one.disagreements, one.flips, one.confusion)
    assert other.logits.relative_l2 == pytest.approx(one.logits.relative_l2, rel=1e-12)


@pytest.mark.parametrize(("right", "guesses"), [((0.97, 0.05), True), ((0.99, 0.95), False)])
def test_on_unbalanced_labels_guessing_is_the_most_frequent_one(right, guesses):
    """`right` are the shares of the frequent and of the rare label, 95 and 5 % of the images, that are recognised."""
    labels = np.arange(2000) % 20 == 0
    hit = np.arange(2000) // 20 % 100 < np.where(labels, 100 * right[1], 100 * right[0])
    logits = np.eye(10)[np.where(hit, labels, ~labels).astype(int)]
    batches = [(np.arange(2000)[i : i + 300, None], labels[i : i + 300].astype(int)) for i in range(0, 2000, 300)]
    accuracy = compare(lambda x: logits[x[:, 0]], lambda x: logits[x[:, 0]], batches).accuracy
    assert accuracy.top1_reference == pytest.approx(95 * right[0] + 5 * right[1])
    assert (accuracy.guessing, accuracy.reference_guesses) == (95, guesses)


def test_without_labels_there_is_agreement_but_no_accuracy(images, logits, labels):
    labelled, plain = compared(images, logits, labels), compared(images, logits, None)
    assert (plain.accuracy, plain.confusion) == (None, None)
    assert {d.label for d in plain.disagreements} == {None}
    assert (plain.agreement, plain.logits, plain.flips) == (labelled.agreement, labelled.logits, labelled.flips)


def test_progress_counts_images(images, logits, labels):
    done: list[int] = []
    compared(images, logits, labels, size=20, progress=done.append)
    assert done == [20, 40, 57]


def test_no_images_are_refused(images, logits):
    with pytest.raises(DatasetError, match="no images to compare on"):
        compared(images[:0], logits, None)


def test_labels_on_some_batches_only_are_refused(images, logits, labels):
    batches = [(images[:5], labels[:5]), (images[5:9], None)]
    with pytest.raises(DatasetError, match="Some images have labels and some have none"):
        compare(Recorded(logits[0]), Recorded(logits[1]), batches)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_is_no_class_is_refused(images, logits, labels, label):
    labels = labels.copy()
    labels[33] = label
    with pytest.raises(DatasetError, match=rf"Label {label} is no class of this network, which has 6 \(0 to 5\)"):
        compared(images, logits, labels)


@pytest.mark.parametrize(("who", "error"), [(0, CheckpointError), (1, SelfTestError)])
def test_logits_that_are_not_finite_are_refused_with_the_image(images, logits, labels, who, error):
    logits[who][23, 2] = np.nan
    with pytest.raises(error, match="outputs of image 23 are NaN or infinite"):
        compared(images, logits, labels)


def test_networks_of_different_classes_are_refused(images, logits, labels):
    with pytest.raises(ShapeError, match=r"shape \(10, 6\), the engine \(10, 5\)"):
        compared(images, (logits[0], logits[1][:, :5]), labels)
