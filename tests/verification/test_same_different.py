"""The protocol against trying every threshold."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.errors import DatasetError
from ran_deploy.verification.same_different import FOLDS, best_threshold, same_different, true_accept_rate
from ran_deploy.verification.statistics import judge

PAIRS = 600


@pytest.fixture
def pairs(rng) -> tuple[np.ndarray, np.ndarray]:
    """Cosines that overlap, and which are of the same."""
    same = np.arange(PAIRS) % 2 == 0
    return np.tanh(rng.normal(0.8 * same, 0.6)), same


def right(scores, same, threshold):
    return int(((scores >= threshold) == same).sum())


def test_the_best_threshold_is_right_as_often_as_any(rng):
    for _ in range(50):
        scores = np.round(rng.normal(size=17), 1)  # many are equal
        same = rng.random(17) < 0.5
        tried = [right(scores, same, t) for t in [*scores, scores.max() + 1]]
        assert right(scores, same, best_threshold(scores, same)) == max(tried)


def test_the_best_threshold_of_separate_kinds_is_in_the_middle_between_them():
    assert best_threshold(np.array([0.1, 0.9, 0.3, 0.7]), np.array([False, True, False, True])) == pytest.approx(0.5)


def test_true_accept_rates_accept_at_most_the_share_of_different_pairs(pairs):
    scores, same = pairs
    for far in (0.1, 0.01):
        accepted = [t for t in scores if (scores[~same] >= t).mean() <= far]
        expected = max((scores[same] >= t).mean() for t in accepted)
        assert true_accept_rate(scores, same, far) == pytest.approx(expected, abs=1 / same.sum())


def test_folds_are_judged_at_the_references_threshold_of_the_others(pairs, rng):
    reference, same = pairs
    engine = reference + rng.normal(0, 0.1, PAIRS)
    result = same_different(reference, engine, same)
    before, after = [], []
    for fold in np.split(np.arange(PAIRS), FOLDS):
        others = [i for i in range(PAIRS) if i not in fold]
        tried = sorted(reference[others])
        best = max(right(reference[others], same[others], t) for t in tried)
        threshold = best_threshold(reference[others], same[others])
        assert right(reference[others], same[others], threshold) == best
        before += ((reference[fold] >= threshold) == same[fold]).tolist()
        after += ((engine[fold] >= threshold) == same[fold]).tolist()
    before, after = np.array(before), np.array(after)
    assert result.accuracy_reference == pytest.approx(100 * before.mean())
    assert result.accuracy_engine == pytest.approx(100 * after.mean())
    assert (result.outcome.lost, result.outcome.gained) == ((before & ~after).sum(), (after & ~before).sum())
    assert result.outcome.drop_pp == pytest.approx(result.accuracy_reference - result.accuracy_engine)
    assert (result.pairs, result.same) == (PAIRS, PAIRS // 2)
    assert 60 < result.accuracy_reference < 90


def test_an_engine_with_shifted_cosines_loses_though_its_order_is_the_same(pairs):
    scores, same = pairs
    result = same_different(scores, scores - 0.6, same)
    assert result.outcome.drop_pp > 5
    assert all(rate.reference == rate.engine for rate in result.tar)


def test_false_accept_rates_are_those_the_pairs_can_resolve(pairs):
    scores, same = pairs
    assert [rate.far for rate in same_different(scores, scores, same).tar] == pytest.approx([10, 1])


def test_the_verdict_speaks_of_pairs(pairs):
    scores, same = pairs
    outcome = same_different(scores, scores, same).outcome
    text = judge(outcome, 0.3).text
    assert text.startswith("Verification accuracy drop is +0.00 points")
    assert "600 pairs cannot prove it" in text
    assert judge(outcome, 1).passed


@pytest.mark.parametrize("same", [[True, False] * 4, [True] * 30, [False] * 30])
def test_pairs_that_show_nothing_are_refused(same):
    with pytest.raises(DatasetError, match="at least 10 in all are needed"):
        same_different(np.zeros(len(same)), np.zeros(len(same)), np.array(same))


def test_a_reference_that_guesses_is_called_so(pairs, rng):
    scores, same = pairs
    assert not same_different(scores, scores, same).reference_guesses
    noise = rng.normal(size=PAIRS)
    assert same_different(noise, noise, same).reference_guesses


@pytest.mark.parametrize("same_share", [0.03, 0.05, 0.95])
def test_on_unbalanced_pairs_guessing_is_the_more_frequent_answer(same_share, rng):
    same = rng.permutation(np.arange(2000) < 2000 * same_share)
    weak, noise = rng.normal(0.3 * same, 1), rng.normal(size=2000)
    result = same_different(weak, noise, same)
    assert result.guessing == pytest.approx(100 * max(same_share, 1 - same_share))
    assert result.accuracy_engine > result.guessing - 1.5
    assert result.reference_guesses
    good = rng.normal(8.0 * same, 1)
    assert not same_different(good, noise, same).reference_guesses
