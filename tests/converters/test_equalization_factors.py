from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.converters.equalization_factors import ReaderWeights, equalization_factors, int8_noise

CHANNELS, OUTPUTS, SAMPLES = 12, 9, 4000


def data_and_weights(rng):
    data = np.maximum(rng.normal(0, 1, (SAMPLES, CHANNELS)), 0) * rng.uniform(0.5, 2, CHANNELS)
    return data, rng.normal(0, 0.2, (OUTPUTS, CHANNELS))


def factors_for(data, weight):
    return equalization_factors(data.max(axis=0), (data**2).mean(axis=0), [reader(weight)])


def reader(weight):
    return ReaderWeights(np.abs(weight), weight**2, 1)


def int8_error(data, weight):
    """Mean squared error of data @ weight.T, rounded to u8 by tensor and s8 by output channel, summed over outputs."""
    data_step, weight_step = data.max() / 255, np.abs(weight).max(axis=1, keepdims=True) / 127
    rounded = (np.rint(data / data_step) * data_step) @ (np.rint(weight / weight_step) * weight_step).T
    return ((rounded - data @ weight.T) ** 2).mean(axis=0).sum()


@pytest.mark.parametrize("hardness", [1 / 256, 1 / 64, 64, 256])
def test_what_stands_out_in_data_or_weights_is_undone(hardness, rng):
    data, weight = data_and_weights(rng)
    sane = int8_error(data, weight)
    change = np.ones(CHANNELS)
    change[[2, 7]] = hardness
    data, weight = data * change, weight / change
    factors = factors_for(data, weight)
    assert int8_error(data, weight) > 50 * sane
    assert int8_error(data / factors, weight * factors) < 2 * sane


def test_factors_are_powers_of_two(rng):
    data, weight = data_and_weights(rng)
    factors = factors_for(data * np.geomspace(1e-9, 1e9, CHANNELS), weight)
    np.testing.assert_array_equal(np.frexp(factors)[0], 0.5)
    assert 1 < factors.max() <= 2.0**15


def test_like_channels_stay_as_they_are(rng):
    data, weight = data_and_weights(rng)
    np.testing.assert_array_equal(factors_for(data, weight), np.ones(CHANNELS))


def test_all_that_read_a_tensor_have_a_say(rng):
    """Lowering the large channel would raise weights that are already the largest of the second layer."""
    largest, mean_square = np.array([64.0, 1, 1, 1]), np.array([400.0, 0.2, 0.2, 0.2])
    light, heavy = np.array([[1 / 64, 1, 1, 1]]), np.array([[1000.0, 1, 1, 1]])
    assert equalization_factors(largest, mean_square, [reader(light)])[0] >= 16
    assert equalization_factors(largest, mean_square, [reader(light), reader(heavy)])[0] <= 2


@pytest.mark.parametrize("largest", [np.zeros(4), np.array([0.0, 3, 0, 0])])
def test_idle_channels_and_zero_weights_are_no_trouble(largest):
    with np.errstate(all="raise"):
        factors = equalization_factors(largest, largest**2 / 9, [reader(np.zeros((2, 4)))])
    np.testing.assert_array_equal(factors, np.ones(4))


def test_the_noise_is_that_of_rounding(rng):
    """Of values that are not zero, which rounds to itself, and weights of which one in twelve, the largest, does."""
    data, weight = rng.uniform(0.1, 2, (SAMPLES, CHANNELS)), rng.normal(0, 0.2, (OUTPUTS, CHANNELS))
    factors = np.exp2(rng.integers(-2, 3, CHANNELS))
    modelled = int8_noise(factors, data.max(axis=0), (data**2).mean(axis=0), reader(weight)) / 12
    assert modelled == pytest.approx(int8_error(data / factors, weight * factors), rel=0.25)
