"""The self-test accepts what rounding explains and nothing else, at every batch size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from ran_deploy.errors import ShapeError
from ran_deploy.verification.golden import SelfTestResult, golden_batch_sizes, self_test

CLASSES, INPUTS, MAX_BATCH = 7, 13, 8
Infer = Callable[[np.ndarray], np.ndarray]


@pytest.fixture
def inputs(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (INPUTS, 6, 5, 3), dtype=np.uint8)


@pytest.fixture
def network(rng: np.random.Generator) -> Infer:
    weights = rng.standard_normal((6 * 5 * 3, CLASSES)) / 10
    return lambda images: ((images.reshape(len(images), -1) / 127.5 - 1) @ weights).astype(np.float32)


@pytest.fixture
def run(network, inputs) -> Callable[..., SelfTestResult]:
    def run_self_test(infer: Infer, spread: float = 0.004, max_batch: int = MAX_BATCH) -> SelfTestResult:
        return self_test(infer, inputs, network(inputs), spread=spread, max_batch=max_batch)

    return run_self_test


def test_the_same_network_passes_at_one_a_partial_and_the_largest_batch(run, network):
    seen: list[int] = []

    def infer(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return network(images)

    result = run(infer)
    assert result.passed
    assert [batch.batch_size for batch in result.batches] == [1, 5, 8]
    assert all(batch.relative_l2 < 1e-6 and batch.rows > 0 for batch in result.batches)
    assert seen == [1] * INPUTS + [5] * 3 + [8] * 2
    assert "passed at batch 1, 5, 8" in result.summary


@pytest.mark.parametrize(
    ("max_batch", "sizes"), [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 5, 8)), (32, (1, 17, 32))]
)
def test_batch_sizes_are_one_the_largest_and_one_between(max_batch, sizes):
    assert golden_batch_sizes(max_batch) == sizes


def test_a_batch_larger_than_the_golden_inputs_is_filled(run, network):
    result = run(network, max_batch=2 * INPUTS + 3)
    assert result.passed
    assert result.batches[-1].batch_size == 2 * INPUTS + 3


def test_rounding_noise_passes_and_the_tolerance_grows_with_the_spread(run, network, rng):
    def noisy(images: np.ndarray) -> np.ndarray:
        logits = network(images)
        noise = rng.standard_normal(logits.shape)
        return logits + 0.05 * noise / np.linalg.norm(noise) * np.linalg.norm(logits)

    strict, wide = run(noisy, spread=0.01), run(noisy, spread=0.02)
    assert (strict.tolerance, wide.tolerance) == (0.03, 0.06)
    assert not strict.passed
    assert wide.passed
    assert wide.batches[0].relative_l2 == pytest.approx(0.05, rel=0.01)


def test_a_wrong_scale_fails_though_labels_agree(run, network):
    result = run(lambda images: network(images) * 1.05)
    assert not result.passed
    assert [batch.wrong_rows for batch in result.batches] == [0, 0, 0]
    assert "relative L2 is 0.0500, 0.0300 is allowed" in result.summary


def test_a_permuted_batch_fails_where_there_is_one(run, network):
    result = run(lambda images: network(images[::-1]))
    assert [batch.passed for batch in result.batches] == [True, False, False]
    assert "failed at batch 5, 8" in result.summary


def test_one_swapped_label_fails_within_the_tolerance(rng):
    """A margin of 7 % of the row norm in one of 100 rows: swapping its two logits moves the whole by only 1 %."""
    recorded = np.zeros((100, 4), np.float32)
    recorded[:, 0], recorded[:, 1] = 10.0, 9.0
    recorded[40, :2] = 9.0, 10.0
    inputs = np.zeros((100, 3, 2, 3), np.uint8)
    inputs[40] = 1

    def swapped(images: np.ndarray) -> np.ndarray:
        return np.repeat(recorded[:1], len(images), axis=0)

    result = self_test(swapped, inputs, recorded, spread=0.0, max_batch=3)
    assert not result.passed
    for batch in result.batches:
        assert batch.relative_l2 < 0.012
        assert batch.wrong_rows == 1
    assert "certain labels differ" in result.summary


def test_labels_may_differ_where_the_margin_is_within_the_tolerance():
    # Row norm 10: t = 0.03 explains a change of sqrt(2) * 0.3 = 0.424 between two logits, and no more.
    def result_for(margin: float) -> SelfTestResult:
        recorded = np.zeros((50, 3), np.float32)
        recorded[:, 0] = 10
        recorded[7] = np.array([1, 1, 0]) * 10 / np.sqrt(2)
        recorded[7, 1] += margin
        inputs = np.zeros((50, 2, 3, 3), np.uint8)
        inputs[7] = 1
        output = recorded[7, [1, 0, 2]]
        table = np.stack([recorded[0], output])
        return self_test(lambda x: table[x[:, 0, 0, 0]], inputs, recorded, spread=0.0, max_batch=1)

    assert result_for(0.40).passed
    assert not result_for(0.46).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_output_that_is_not_finite_fails(run, network, bad):
    def infer(images: np.ndarray) -> np.ndarray:
        logits = network(images)
        logits[-1, 3] = bad
        return logits

    result = run(infer, spread=10.0)
    assert [batch.passed for batch in result.batches] == [False] * 3
    assert [batch.relative_l2 for batch in result.batches] == [None] * 3
    assert "NaN or infinite" in result.summary


def test_outputs_of_another_shape_are_refused(run, network):
    with pytest.raises(ShapeError, match=r"returns outputs of shape \(1, 6\); \(1, 7\) was recorded"):
        run(lambda images: network(images)[:, :6])


def test_golden_inputs_without_their_logits_are_refused(network, inputs):
    with pytest.raises(ShapeError, match="13 golden inputs for 12 recorded"):
        self_test(network, inputs, network(inputs)[:12], spread=0.0, max_batch=1)


def test_an_engine_that_goes_wrong_when_a_size_comes_again_is_found_by_running_it_again(inputs, network):
    calls: Counter[int] = Counter()

    def infer(images: np.ndarray) -> np.ndarray:
        calls[len(images)] += 1
        return network(images) * (5 if len(images) == 8 and calls[8] == 3 else 1)

    assert self_test(infer, inputs, network(inputs), spread=0.004, max_batch=8).passed
    assert calls == {1: 13, 5: 3, 8: 2}
    calls.clear()
    result = self_test(infer, inputs, network(inputs), spread=0.004, max_batch=8, least_calls=3)
    assert [batch.passed for batch in result.batches] == [True, True, False]
    assert calls == {1: 13, 5: 3, 8: 3}
