from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.converters.saturation import fit_int16_pairs


@pytest.mark.parametrize("channels", [4, 5])
def test_fitted_weights_cannot_leave_int16_in_any_pair(rng, channels):
    stored = rng.integers(-128, 128, (6, channels, 3, 2)).astype(np.int8)
    stored[0], stored[1] = 127, -127
    scale = rng.uniform(0.01, 0.1, 6).astype(np.float32)
    fitted, fitted_scale = fit_int16_pairs(stored, scale)
    # Innermost channels, in both orders engines use: pairs at one position, and pairs running on over positions.
    inner = fitted.transpose(0, 2, 3, 1).astype(int)
    for pairs in (inner[..., : channels // 2 * 2].reshape(6, -1, 2), inner.reshape(6, -1, 2)):
        assert 255 * np.maximum(pairs, 0).sum(-1).max() <= 2**15 - 1
        assert 255 * np.minimum(pairs, 0).sum(-1).min() >= -(2**15)
    error = np.abs(fitted * fitted_scale[:, None, None, None] - stored * scale[:, None, None, None])
    assert (error.max((1, 2, 3)) <= fitted_scale / 2 * 1.0001).all()


def test_weights_that_fit_already_stay(rng):
    stored = rng.integers(-63, 64, (6, 4, 3, 2)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, 6).astype(np.float32)
    fitted, fitted_scale = fit_int16_pairs(stored, scale)
    np.testing.assert_array_equal(fitted, stored)
    np.testing.assert_array_equal(fitted_scale, scale)


def test_one_large_weight_among_small_neighbours_costs_little():
    stored = np.full((1, 4, 1, 1), 10, np.int8)
    stored[0, 2] = 127
    _, scale = fit_int16_pairs(stored, np.float32([1]))
    assert scale == np.float32(137 / 127)
