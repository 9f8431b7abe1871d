from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.errors import ShapeError
from ran_deploy.verification.layer_errors import (
    HISTOGRAM_BINS,
    LayerError,
    RangeUse,
    TensorDistances,
    furthest,
    magnitude_counts,
    range_use,
)


def test_distances_in_batches_are_those_of_all_values(rng):
    reference = {"a": rng.normal(size=(7, 3, 4)), "b": rng.normal(size=(7, 5))}
    output = {name: array + 0.1 * rng.normal(size=array.shape) for name, array in reference.items()}
    distances = TensorDistances()
    for rows in (slice(0, 3), slice(3, 7)):
        distances.add({n: x[rows] for n, x in reference.items()}, {n: x[rows] for n, x in output.items()})
    for name, errors in distances.errors().items():
        error = output[name] - reference[name]
        assert errors.relative_l2 == pytest.approx(np.linalg.norm(error) / np.linalg.norm(reference[name]))
        assert errors.sqnr_db == pytest.approx(10 * np.log10((reference[name] ** 2).sum() / (error**2).sum()))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_has_neither_distance_nor_sqnr(bad):
    distances = TensorDistances()
    distances.add({"a": np.ones(4)}, {"a": np.array([1, bad, 1, 1])})
    errors = distances.errors()["a"]
    assert errors.relative_l2 is None
    assert errors.sqnr_db is None


def test_only_the_tensors_that_were_put_out_are_compared():
    distances = TensorDistances()
    distances.add({"a": np.ones(2), "b": np.ones(2)}, {"a": np.ones(2)})
    assert list(distances.errors()) == ["a"]
    with pytest.raises(ShapeError):
        distances.add({"a": np.ones(3)}, {"a": np.ones(2)})


def test_values_half_a_step_outside_are_rounded_not_cut_off():
    low, high, scale = -128 * 0.5, 127 * 0.5, 0.5
    inside, outside = np.array([63.5, 63.74, -64.24, 0]), np.array([63.76, 100, -64.26])
    assert range_use(inside, low, high, scale) == RangeUse(4, 0, 64.24)
    assert range_use(outside, low, high, scale) == RangeUse(3, 3, 100.0)
    for values in (inside, outside):  # what QuantizeLinear saturates is what rounding puts beyond its ends
        levels = np.rint(values / scale)
        assert range_use(values, low, high, scale).clipped == np.count_nonzero((levels > 127) | (levels < -128))


def test_uses_of_batches_add_up():
    assert RangeUse(3, 1, 2.0) + RangeUse(5, 0, 7.0) == RangeUse(8, 1, 7.0)


def test_magnitudes_are_counted_up_to_the_end(rng):
    values = rng.normal(size=1000)
    end = float(np.abs(values).max())
    counts = magnitude_counts(values, end)
    assert counts.sum() == 1000
    assert counts[: HISTOGRAM_BINS // 2].sum() == np.count_nonzero(np.abs(values) < end / 2)
    assert magnitude_counts(values, end / 2).sum() == np.count_nonzero(np.abs(values) <= end / 2)


def layer(relative_l2: float | None) -> LayerError:
    return LayerError(
        name="a",
        stage="a",
        branch="trunk",
        operator="Conv",
        tensor="t",
        relative_l2=relative_l2,
        sqnr_db=None,
        input=None,
    )


def test_the_furthest_layers_come_first_and_equal_ones_not_at_all():
    assert furthest([layer(0.1), layer(0.0), layer(None), layer(0.3)]) == (2, 3, 0)
    assert furthest([layer(0.0)]) == ()
    assert len(furthest([layer(0.1)] * 30)) == 10
