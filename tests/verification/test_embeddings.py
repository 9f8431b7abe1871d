"""Embeddings compared against NumPy, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.datasets.pairs import ImagePairs
from ran_deploy.errors import DatasetError
from ran_deploy.verification.embeddings import compare_embeddings
from ran_deploy.verification.same_different import same_different

IMAGES, FEATURES = 57, 12


@pytest.fixture
def vectors(rng) -> tuple[np.ndarray, np.ndarray]:
    reference = rng.standard_normal((IMAGES, FEATURES)).astype(np.float32)
    return reference, reference + 0.3 * rng.standard_normal(reference.shape).astype(np.float32)


@pytest.fixture
def pairs(rng) -> ImagePairs:
    first, second = rng.integers(0, IMAGES, (2, 40))
    return ImagePairs(first=first, second=second, same=np.arange(40) % 2 == 0, origin="test")


def compared(vectors, size: int = 10, **options):
    numbers = np.arange(IMAGES)[:, None]
    batches = ((numbers[i : i + size], None) for i in range(0, IMAGES, size))
    return compare_embeddings(lambda x: vectors[0][x[:, 0]], lambda x: vectors[1][x[:, 0]], batches, **options)


def cosines(a, b) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_the_distribution_is_numpys(vectors):
    result, expected = compared(vectors), cosines(*vectors)
    assert result.images == IMAGES
    assert result.cosine.mean == pytest.approx(expected.mean())
    assert result.cosine.lowest == pytest.approx(expected.min())
    found = (result.cosine.percentile_1, result.cosine.percentile_5, result.cosine.median)
    assert found == pytest.approx(np.percentile(expected, (1, 5, 50)))
    distance = np.linalg.norm(vectors[1] - vectors[0]) / np.linalg.norm(vectors[0])
    assert result.vectors.relative_l2 == pytest.approx(distance, rel=1e-6)


def test_the_images_that_turned_most_come_first(vectors):
    result, expected = compared(vectors, worst=5), cosines(*vectors)
    assert [image.index for image in result.turned] == np.argsort(expected)[:5].tolist() == list(result.worst)
    worst = result.turned[0]
    error = np.linalg.norm(vectors[1][worst.index] - vectors[0][worst.index]) / np.linalg.norm(vectors[0][worst.index])
    assert worst.relative_l2 == pytest.approx(error, rel=1e-6)
    assert result.renumbered(range(100, 200)).worst[0] == 100 + worst.index


def test_pairs_are_judged_by_the_cosines_of_each_network(vectors, pairs):
    result = compared(vectors, pairs=pairs)
    first, second = (cosines(v[pairs.first], v[pairs.second]) for v in vectors)
    expected = same_different(first, second, pairs.same)
    assert result.same_different.outcome == expected.outcome == result.outcome
    assert result.same_different.tar == expected.tar


def test_without_pairs_there_is_no_outcome(vectors):
    assert (compared(vectors).outcome, compared(vectors).same_different) == (None, None)


@pytest.mark.parametrize("size", [1, 7, IMAGES])
def test_batching_changes_nothing(vectors, pairs, size):
    one, other = compared(vectors, pairs=pairs), compared(vectors, size=size, pairs=pairs)
    assert (one.turned, one.cosine, one.same_different) == (other.turned, other.cosine, other.same_different)


def test_vectors_of_zeros_are_alike_among_themselves_and_unlike_anything_else(vectors):
    vectors[0][:2] = 0
    vectors[1][0] = 0
    worst = compared(vectors).turned[0]
    assert (worst.index, worst.cosine, worst.relative_l2) == (1, 0.0, None)


def test_no_images_are_refused():
    with pytest.raises(DatasetError, match="no images to compare on"):
        compare_embeddings(lambda x: x, lambda x: x, [])
