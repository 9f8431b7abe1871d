from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr

from ran_deploy.errors import DatasetError, SelfTestError
from ran_deploy.manifest import AttentionRecord
from ran_deploy.verification.attention import (
    AttentionComparison,
    compare_attention,
    moved_shares,
    row_correlations,
    rows_from_masks,
)

RECORDS = (
    AttentionRecord(name="fine", module="a", height=4, width=6),
    AttentionRecord(name="coarse", module="b", height=2, width=3),
)


def masks_of(rng, images: int) -> dict[str, np.ndarray]:
    return {r.name: rng.uniform(0.2, 0.8, (images, r.height, r.width)).astype(np.float32) for r in RECORDS}


def compared(reference, engine, *, step: int = 3, **options) -> AttentionComparison:
    """Compare two sets of masks in batches of `step`; the images are their own numbers."""
    count = len(reference["fine"])
    numbers = np.arange(count)[:, None]
    rows = [rows_from_masks(masks, RECORDS) for masks in (reference, engine)]
    batches = [(numbers[start : start + step], None) for start in range(0, count, step)]
    return compare_attention(lambda x: rows[0][x[:, 0]], lambda x: rows[1][x[:, 0]], batches, RECORDS, **options)


def test_correlations_of_rows_are_scipys(rng):
    first = rng.random((5, 24)).astype(np.float32)
    second = (first + rng.normal(0, [[0.01], [0.1], [0.3], [1], [3]], (5, 24))).astype(np.float32)
    expected = [pearsonr(a.astype(float), b.astype(float))[0] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(row_correlations(first, second), expected, rtol=1e-9)


def test_correlation_sees_neither_level_nor_contrast_and_tells_opposites(rng):
    row = rng.random((1, 24))
    np.testing.assert_allclose(row_correlations(row, 0.5 + 3 * row), [1])
    np.testing.assert_allclose(row_correlations(row, 2 - row), [-1])


def test_a_flat_reference_has_no_correlation_and_a_flat_output_none_left(rng):
    row = rng.random((1, 24))
    rounded = np.full((1, 24), 0.4, np.float32)
    rounded[0, ::2] = np.nextafter(np.float32(0.4), np.float32(1))  # as float32 means of equal masks come out
    for flat in (np.full((1, 24), 0.4), np.zeros((1, 24)), rounded):
        assert np.isnan(row_correlations(flat, row)).all()
        assert np.isnan(row_correlations(flat, flat)).all()
        assert row_correlations(row, flat).tolist() == [0]


def test_the_share_that_moved_is_what_must_be_carried_elsewhere():
    reference = np.array([[1.0, 1, 1, 1], [1, 0, 0, 0], [4, 4, 0, 0], [0.3, 0.3, 0.3, 0.3]])
    output = np.array([[2.0, 2, 2, 2], [0, 0, 0, 1], [3, 3, 1, 1], [0.4, 0.2, 0.3, 0.3]])
    np.testing.assert_allclose(moved_shares(reference, output), [0, 1, 0.25, 1 / 12], atol=1e-12)


def test_masks_with_negative_values_or_nothing_have_no_shares():
    reference = np.array([[0.5, -0.1], [0.0, 0.0], [0.5, 0.5]])
    output = np.array([[0.5, 0.1], [0.5, 0.5], [1.0, -0.1]])
    assert np.isnan(moved_shares(reference, output)).all()


def test_modules_are_judged_each_by_itself_over_all_images(rng):
    reference = masks_of(rng, 8)
    engine = {"fine": reference["fine"], "coarse": reference["coarse"] * 0.9 + rng.normal(0, 0.02, (8, 2, 3))}
    found = compared(reference, engine)
    fine, coarse = found.modules
    a, b = (masks["coarse"].reshape(8, -1).astype(float) for masks in (reference, engine))
    correlations = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    shares = [np.abs(x / x.sum() - y / y.sum()).sum() / 2 for x, y in zip(a, b, strict=True)]
    assert found.images == 8
    assert (fine.name, fine.height, fine.width, fine.flat) == ("fine", 4, 6, 0)
    assert (fine.relative_l2, fine.moved_worst) == (0, 0)
    assert fine.correlation_worst == pytest.approx(1)
    assert coarse.correlation_mean == pytest.approx(np.mean(correlations), rel=1e-6)
    assert coarse.correlation_worst == pytest.approx(np.min(correlations), rel=1e-6)
    assert coarse.relative_l2 == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
    assert coarse.moved_mean == pytest.approx(100 * np.mean(shares), rel=1e-6)
    assert coarse.moved_worst == pytest.approx(100 * np.max(shares), rel=1e-6)


def test_the_images_furthest_from_the_reference_come_first_with_their_masks(rng):
    reference = masks_of(rng, 10)
    engine = {name: masks.copy() for name, masks in reference.items()}
    engine["coarse"][7] = 1 - engine["coarse"][7]
    engine["fine"][2] += rng.normal(0, 0.1, (4, 6))
    found = compared(reference, engine, worst=3).renumbered(range(100, 110))
    assert [image.index for image in found.moved[:2]] == [107, 102]
    assert found.moved[0].correlations["coarse"] == pytest.approx(-1, abs=1e-6)
    assert found.moved[0].correlations["fine"] == pytest.approx(1)
    assert set(found.masks) == {image.index for image in found.moved}
    np.testing.assert_array_equal(found.masks[107].reference["coarse"], reference["coarse"][7])
    np.testing.assert_array_equal(found.masks[102].engine["fine"], engine["fine"][2])


@pytest.mark.parametrize("step", [1, 4, 10])
def test_the_size_of_batches_changes_nothing(rng, step):
    reference = masks_of(rng, 10)
    engine = {name: masks + rng.normal(0, 0.05, masks.shape) for name, masks in reference.items()}
    found, other = compared(reference, engine, step=step), compared(reference, engine, step=7)
    assert found.moved == other.moved
    for first, second in zip(found.modules, other.modules, strict=True):
        assert first.correlation_mean == pytest.approx(second.correlation_mean, rel=1e-12)
        assert first.relative_l2 == pytest.approx(second.relative_l2, rel=1e-12)


def test_flat_masks_are_counted_and_left_out(rng):
    reference = masks_of(rng, 5)
    reference["fine"][1:3] = 0.5
    reference["coarse"][:] = 0.25
    fine, coarse = compared(reference, masks_of(rng, 5)).modules
    assert (fine.flat, coarse.flat) == (2, 5)
    assert fine.correlation_worst is not None
    assert not math.isnan(fine.correlation_worst)
    assert (coarse.correlation_mean, coarse.correlation_worst) == (None, None)
    assert coarse.relative_l2 > 0


def test_images_with_nothing_but_flat_masks_are_never_the_worst(rng):
    reference = masks_of(rng, 3)
    for masks in reference.values():
        masks[0] = 0.5
    assert {image.index for image in compared(reference, masks_of(rng, 3), worst=2).moved} == {1, 2}


def test_negative_masks_have_correlations_but_no_shares(rng):
    reference = masks_of(rng, 4)
    reference["fine"] -= 0.5
    fine, coarse = compared(reference, reference).modules
    assert (fine.moved_mean, fine.moved_worst) == (None, None)
    assert fine.correlation_worst == pytest.approx(1)
    assert coarse.moved_worst == 0


def test_masks_that_are_not_finite_and_no_images_are_refused(rng):
    reference = masks_of(rng, 4)
    broken = {name: masks.copy() for name, masks in reference.items()}
    broken["coarse"][2, 0, 1] = np.nan
    with pytest.raises(SelfTestError, match="image 2 are NaN"):
        compared(reference, broken)
    with pytest.raises(DatasetError):
        compared(masks_of(rng, 0), masks_of(rng, 0))
