"""Which powers of two bring the channels of a tensor to like size: those that leave the least int8 noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["ReaderWeights", "equalization_factors", "int8_noise"]

DATA_LEVELS = 255  # u8, as CPUs have behind a Relu; with s8's 127 the factors came out other, and no better for s8
WEIGHT_LEVELS = 127
QUANTILES = np.linspace(0.1, 1, 19)  # of the channels' sizes: where what stands out may begin
ROUNDS = 2  # data and weights in turn
WORTHWHILE = 0.7  # of the noise, that may be left: near a tie the model's word is not worth a change
SMALLEST = 2.0**-20  # of the largest channel: smaller ones count as that
LARGEST_EXPONENT = 15  # of a factor; FP16 holds numbers of 2**-14 to 2**15 in full


class ReaderWeights(NamedTuple):
    """Of the weights of one layer: max |w| and sum of w^2 by output and input channel, (O, C), each over `pixels`."""

    largest: np.ndarray
    square: np.ndarray
    pixels: int


def equalization_factors(largest: np.ndarray, mean_square: np.ndarray, readers: Sequence[ReaderWeights]) -> np.ndarray:
    """Return for each channel a power of two by which to divide it; 1 for all where that gains little.

    Only what stands out is scaled: channels larger than a threshold are brought down to it, then channels whose weights
    are larger than another, beside the others of the same output. Thresholds are the quantiles of least `int8_noise`.
    Factors taken from all sizes alike, as in SmoothQuant, are worse: they move channels that never hurt.
    Shapes: largest |x| and mean of x^2 (C,), non-negative -> (C,).
    """
    factors = untouched = np.ones(len(largest))
    if not largest.any():
        return untouched
    largest = np.maximum(largest, largest.max() * SMALLEST)

    def noise(factors: np.ndarray) -> float:
        return sum(int8_noise(factors, largest, mean_square, reader) for reader in readers)

    for _ in range(ROUNDS):
        sizes = largest / factors
        lowered = [factors * power_of_two(np.maximum(1, sizes / cap)) for cap in np.quantile(sizes, QUANTILES)]
        factors = min([factors, *lowered], key=noise)
        shares = weight_shares(factors, readers)
        lowered = [factors * power_of_two(np.minimum(1, cap / shares)) for cap in np.quantile(shares, QUANTILES)]
        factors = min([factors, *lowered], key=noise)
    factors = np.clip(factors, 2.0**-LARGEST_EXPONENT, 2.0**LARGEST_EXPONENT)
    return factors if noise(factors) < WORTHWHILE * noise(untouched) else untouched


def int8_noise(factors: np.ndarray, largest: np.ndarray, mean_square: np.ndarray, reader: ReaderWeights) -> float:
    """Return the mean square that int8 adds to the outputs of a layer, summed over them, times 12.

    Rounding in steps of d is off by d^2 / 12 in the mean square. The data has the step max_c(largest_c / s_c) / levels
    and meets weights w_oc s_c; that of output o's weights is max_c(|w_oc| s_c) / levels and meets data x_c / s_c.
    Shapes: factors s, largest |x| and mean x^2 (C,).
    """
    data_step = (largest / factors).max() / DATA_LEVELS
    weight_steps = (reader.largest * factors).max(axis=1) / WEIGHT_LEVELS
    from_data = data_step**2 * (reader.square @ factors**2).sum()
    from_weights = (weight_steps**2).sum() * reader.pixels * (mean_square / factors**2).sum()
    return float(from_data + from_weights)


def weight_shares(factors: np.ndarray, readers: Sequence[ReaderWeights]) -> np.ndarray:
    """Return the largest weight of each input channel as a share of its output channel's largest, (C,), above 0."""
    shares = np.full(len(factors), SMALLEST)
    for reader in readers:
        scaled = reader.largest * factors
        largest = scaled.max(axis=1, keepdims=True)
        by_output = np.divide(scaled, largest, out=np.zeros_like(scaled), where=largest > 0)
        shares = np.maximum(shares, by_output.max(axis=0))
    return shares


def power_of_two(x: np.ndarray) -> np.ndarray:
    """Return the power of two next to each x > 0 on a logarithmic scale."""
    nearest: np.ndarray = np.exp2(np.rint(np.log2(x)))
    return nearest
