"""Predictions against SciPy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from ran_deploy.errors import ConfigError
from ran_deploy.runtime.postprocess import Prediction, softmax, top_k


def test_softmax_is_scipys_and_does_not_overflow():
    logits = np.random.default_rng(0).normal(0, 300, (5, 7)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits.astype(np.float64), axis=1), rtol=1e-12)
    assert np.isfinite(softmax(np.float32([[3e38, -3e38, 0]]))).all()


def test_top_k_gives_the_likeliest_first_with_probability_and_logit():
    logits = np.log(np.float32([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]]))
    first, second = top_k(logits, 2, ["a", "b", "c"])
    assert [(p.index, p.label) for p in first] == [(1, "b"), (2, "c")]
    assert [(p.index, p.label) for p in second] == [(0, "a"), (2, "c")]
    assert first[0].probability == pytest.approx(0.6)
    assert first[1].logit == pytest.approx(np.log(0.3))


def test_equal_logits_come_by_index():
    logits = np.zeros((1, 40), np.float32)
    logits[0, [7, 31]] = 1
    assert [p.index for p in top_k(logits, 5)[0]] == [7, 31, 0, 1, 2]


def test_k_is_clamped_to_the_classes():
    assert top_k(np.zeros((1, 2), np.float32), 9) == [[Prediction(0, None, 0.5, 0.0), Prediction(1, None, 0.5, 0.0)]]
    assert top_k(np.empty((0, 4), np.float32), 3) == []
    with pytest.raises(ConfigError, match="top-k is 0"):
        top_k(np.zeros((1, 2), np.float32), 0)
