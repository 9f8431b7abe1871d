"""Metrics against NumPy, closed forms and sorting."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ran_deploy.errors import ShapeError
from ran_deploy.verification.metrics import (
    ErrorSums,
    agreeing,
    error_sums,
    logit_errors,
    relative_l2,
    top_k_correct,
)


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    reference = rng.standard_normal((23, 7)).astype(np.float32)
    return reference, reference + 0.1 * rng.standard_normal((23, 7)).astype(np.float32)


def test_errors_are_those_of_numpy_in_float64(pair):
    errors = logit_errors(error_sums(*pair))
    reference, output = (array.astype(np.float64) for array in pair)
    noise = np.linalg.norm(output - reference)
    assert errors.max_abs == np.abs(output - reference).max()
    assert errors.relative_l2 == pytest.approx(noise / np.linalg.norm(reference), rel=1e-12)
    assert errors.sqnr_db == pytest.approx(20 * np.log10(np.linalg.norm(reference) / noise), rel=1e-12)
    cosine = (reference * output).sum() / np.linalg.norm(reference) / np.linalg.norm(output)
    assert errors.cosine == pytest.approx(cosine, rel=1e-12)


def test_batches_add_up_to_the_whole(pair):
    cuts = [np.split(array, [1, 9]) for array in pair]
    joined = sum((error_sums(r, o) for r, o in zip(*cuts, strict=True)), start=ErrorSums())
    whole, parts = logit_errors(error_sums(*pair)), logit_errors(joined)
    assert parts.max_abs == whole.max_abs
    assert parts.relative_l2 == pytest.approx(whole.relative_l2, rel=1e-13)
    assert parts.cosine == pytest.approx(whole.cosine, rel=1e-13)


def test_a_wrong_scale_is_seen_by_relative_l2_and_sqnr_but_not_by_cosine(pair):
    reference = pair[0]
    errors = logit_errors(error_sums(reference, reference * np.float32(1.25)))
    assert errors.relative_l2 == pytest.approx(0.25)
    assert errors.sqnr_db == pytest.approx(-20 * math.log10(0.25))
    assert errors.cosine == pytest.approx(1.0)


def test_equal_logits_have_no_error(pair):
    errors = logit_errors(error_sums(pair[0], pair[0]))
    assert (errors.max_abs, errors.relative_l2, errors.sqnr_db) == (0.0, 0.0, None)
    assert errors.cosine == pytest.approx(1.0, abs=1e-15)
    assert errors.cosine <= 1.0


def test_a_zero_reference_is_told_apart(pair):
    zero = np.zeros_like(pair[0])
    both, one = logit_errors(error_sums(zero, zero)), logit_errors(error_sums(zero, pair[0]))
    assert (both.relative_l2, both.cosine, both.sqnr_db) == (0.0, 1.0, None)
    assert (one.relative_l2, one.cosine, one.sqnr_db) == (None, 0.0, None)
    assert relative_l2(zero, pair[0]) == math.inf


def test_float32_logits_do_not_lose_the_small_error_of_many():
    reference = np.full((1000, 1001), 100.0, np.float32)
    output = reference + np.float32(2**-14)
    assert relative_l2(reference, output) == pytest.approx(2**-14 / 100, rel=1e-9)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 4\) cannot be compared with a reference of \(2, 3\)"):
        error_sums(np.zeros((2, 3)), np.zeros((2, 4)))


def test_agreeing_looks_at_the_largest_logit():
    reference = np.array([[1.0, 2.0, 0.0], [5.0, 4.0, 3.0], [0.0, 0.0, -1.0]])
    output = np.array([[-3.0, -2.0, -9.0], [4.0, 4.5, 3.0], [0.0, 0.0, -1.0]])
    assert agreeing(reference, output).tolist() == [True, False, True]


@pytest.mark.parametrize("k", [1, 2, 5, 11, 40])
def test_top_k_is_membership_in_the_sorted_head(rng, k):
    logits = rng.integers(-3, 4, (50, 11)).astype(np.float32)  # with ties
    labels = rng.integers(0, 11, 50)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert top_k_correct(logits, labels, k).tolist() == (best == labels[:, None]).any(axis=1).tolist()


def test_of_equal_logits_the_lower_index_ranks_first():
    logits = np.zeros((3, 4))
    assert top_k_correct(logits, np.array([0, 1, 3]), 2).tolist() == [True, True, False]
    assert top_k_correct(logits, np.array([0, 1, 3]), 1).tolist() == (logits.argmax(axis=1) == [0, 1, 3]).tolist()
