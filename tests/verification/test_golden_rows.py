"""Directions of embeddings: what the tolerance explains passes, a vector that points elsewhere does not."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.manifest import Task
from ran_deploy.verification.golden import SelfTestResult, self_test
from ran_deploy.verification.golden_rows import ROW_RULES, allowed_errors

FEATURES, INPUTS = 16, 200
RULE = ROW_RULES[Task.EMBEDDING]


@pytest.fixture
def recorded(rng) -> np.ndarray:
    vectors = rng.standard_normal((INPUTS, FEATURES))
    return (10 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def proven(recorded: np.ndarray, outputs: np.ndarray) -> SelfTestResult:
    inputs = np.arange(len(recorded), dtype=np.uint8).reshape(-1, 1, 1, 1)
    return self_test(lambda x: outputs[x[:, 0, 0, 0]], inputs, recorded, spread=0.0, max_batch=7, task=Task.EMBEDDING)


def turned(vector: np.ndarray, sine: float, rng) -> np.ndarray:
    """Return `vector` with an error at a right angle to the result, of norm sine * ||vector||: it turns the most."""
    other = rng.standard_normal(len(vector))
    other -= (other @ vector) / (vector @ vector) * vector
    other *= np.linalg.norm(vector) / np.linalg.norm(other)
    cosine = np.sqrt(1 - sine**2)
    return cosine * (cosine * vector + sine * other)


def test_the_recorded_vectors_pass_and_the_summary_tells_the_cosine(recorded):
    result = proven(recorded, recorded)
    assert result.passed
    assert [batch.rows for batch in result.batches] == [200, 200, 203]
    assert result.summary.endswith("0.0300 allowed, cosine at least 1.00000")


@pytest.mark.parametrize(("sine", "passes"), [(0.088, True), (0.092, False)])
def test_one_vector_may_turn_by_three_times_the_tolerance(recorded, rng, sine, passes):
    outputs = recorded.copy()
    outputs[40] = turned(recorded[40], sine, rng)
    result = proven(recorded, outputs)
    assert result.passed == passes
    for batch in result.batches:
        assert batch.relative_l2 < 0.03  # all together notice nothing
        assert batch.wrong_rows == (0 if passes else 1)
        assert batch.lowest_cosine == pytest.approx(np.sqrt(1 - sine**2), abs=1e-5)
    assert passes or "1 of 200 vectors point elsewhere" in result.summary


def test_labels_of_an_embedding_may_differ(recorded):
    recorded[:, 0] = np.abs(recorded).max(axis=1) + 0.05
    outputs = recorded.copy()
    outputs[3, 0] -= 0.1
    assert proven(recorded, outputs).passed


def test_a_wrong_scale_fails_though_directions_agree(recorded):
    result = proven(recorded, 1.05 * recorded)
    assert not result.passed
    assert [batch.wrong_rows for batch in result.batches] == [0, 0, 0]
    assert "relative L2 is 0.0500" in result.summary


def test_short_vectors_may_point_anywhere(recorded, rng):
    recorded[7] = (
        0.05 * recorded[7]
    )  # norm 0.5; all together may be 0.03 * 10 = 0.3 off each, and a row three times that
    outputs = recorded.copy()
    outputs[7] = -recorded[7]
    recorded[8] = 0
    outputs[8] = 0.01 * rng.standard_normal(FEATURES)
    result = proven(recorded, outputs)
    assert result.passed
    assert result.batches[0].rows == INPUTS - 2


def test_rows_that_are_not_finite_are_not_kept(recorded):
    outputs = recorded.copy()
    outputs[5, 2] = np.nan
    kept = RULE.kept(recorded, outputs, allowed_errors(recorded, 0.03))
    assert np.flatnonzero(~kept).tolist() == [5]
    assert "NaN or infinite" in proven(recorded, outputs).summary
