"""How many images does it take to prove that fewer than p of them change class? Ways to test that, compared.

    python benchmarks/sequential_tests.py [RUNS]

Each way looks after every batch of 32 images, or where it says so, and stops when it has proven that the rate is below
p = 0.5 %, at the latest after 40,000. `false` is the share of runs at the rate p itself that prove it: 5 % at most are
promised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import beta

from ran_deploy.verification.sequential import LOWER_RATES, anytime_upper

RATE, ALPHA, BATCH, MOST = 0.005, 0.05, 32, 40_000
SHARES = (0.0, 0.125, 0.25, 0.5, 0.75)  # true rates, of RATE
IMAGES = np.arange(BATCH, MOST + 1, BATCH)

Test = Callable[[np.ndarray], np.ndarray]  # changes at each look (runs, looks) -> whether it is proven there


def mixture(alternatives: tuple[tuple[float, float], ...]) -> Test:
    """Return the test of a fixed mixture of alternatives, each a multiple of RATE with its share."""

    def proven(changed: np.ndarray) -> np.ndarray:
        evidence = np.full(changed.shape, -np.inf)
        for multiple, share in alternatives:
            hit = changed * np.log(multiple) if multiple else np.where(changed, -np.inf, 0.0)
            miss = (IMAGES - changed) * np.log((1 - multiple * RATE) / (1 - RATE))
            evidence = np.logaddexp(evidence, np.log(share) + hit + miss)
        return evidence >= np.log(1 / ALPHA)

    return proven


def beta_mixture(a: float, nodes: int = 32) -> Test:
    """Return the mixture over Beta(a, 1), by quadrature of its quantiles."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return mixture(tuple(zip((((points + 1) / 2) ** (1 / a)).tolist(), (weights / 2).tolist(), strict=True)))


def plug_in(changed: np.ndarray) -> np.ndarray:
    """Bet, batch by batch, on the rate observed so far, shrunk as by half a change in 1 / RATE images before them."""
    before = np.concatenate([np.zeros((len(changed), 1)), changed[:, :-1]], axis=1)
    alternative = np.minimum((before + 0.5) / (IMAGES - BATCH + 1 / RATE), RATE)
    new = changed - before
    steps = new * np.log(alternative / RATE) + (BATCH - new) * np.log((1 - alternative) / (1 - RATE))
    return steps.cumsum(axis=1) >= np.log(1 / ALPHA)


def spending(first: float, ratio: float) -> Test:
    """Return Clopper-Pearson at geometric looks; look i may err with a probability of ALPHA / (i (i + 1))."""

    def proven(changed: np.ndarray) -> np.ndarray:
        found = np.zeros(changed.shape, bool)
        images, look = first / RATE, 1
        while images < MOST:
            column = int(np.searchsorted(IMAGES, images))
            found[:, column] = bound(changed[:, column], IMAGES[column], ALPHA / (look * (look + 1))) <= RATE
            images, look = images * ratio, look + 1
        return found

    return proven


def bound(changed: np.ndarray, images: np.ndarray, alpha: float) -> np.ndarray:
    return beta.ppf(1 - alpha, changed + 1, images - changed)


TESTS: dict[str, Test] = {
    "ours: 0, 1/4, 1/2, 3/4": mixture(LOWER_RATES),
    "0, 1/4, 1/2 equally": mixture(((0.0, 1 / 3), (0.25, 1 / 3), (0.5, 1 / 3))),
    "1/4 alone (Wald)": mixture(((0.25, 1.0),)),
    "1/2 alone (Wald)": mixture(((0.5, 1.0),)),
    "uniform": beta_mixture(1),
    "Beta(1/2, 1)": beta_mixture(1 / 2),
    "plug-in bets": plug_in,
    "Clopper-Pearson, spent x1.3": spending(3.7, 1.3),
    "Clopper-Pearson, spent x2": spending(3.7, 2),
    "Clopper-Pearson unspent (invalid)": lambda changed: bound(changed, IMAGES, ALPHA) <= RATE,
}


def stops(test: Test, rate: float, runs: int) -> np.ndarray:
    """Return after how many images each run proves its claim: inf for never. All tests see the same runs."""
    rng = np.random.default_rng(20170424)
    found = []
    for start in range(0, runs, 500):  # what fits the memory
        changed = rng.binomial(BATCH, rate, (min(500, runs - start), len(IMAGES))).cumsum(axis=1)
        proven = test(changed)
        found.append(np.where(proven.any(axis=1), IMAGES[proven.argmax(axis=1)], np.inf))
    return np.concatenate(found)


def main(runs: int) -> int:
    heads = "".join(f"{f'{100 * share * RATE:.4g} %':>10}" for share in SHARES)
    print(f"{runs:,} runs, mean images until below {100 * RATE:g} % is proven, at true rates of")
    print(f"{'':36}{heads}{'false':>10}")
    for name, test in TESTS.items():
        means = [np.minimum(stops(test, share * RATE, runs), MOST).mean() for share in SHARES]
        false = np.isfinite(stops(test, RATE, runs)).mean()
        print(f"{name:36}" + "".join(f"{mean:10,.0f}" for mean in means) + f"{100 * false:8.2f} %", flush=True)
    print("\nbound in percent after one look, ours against Clopper and Pearson's:")
    for changed, images in ((0, 512), (0, 2000), (1, 2000), (2, 2000), (10, 2000), (10, 10_000), (100, 10_000)):
        ours, once = 100 * anytime_upper(changed, images), 100 * bound(np.array(changed), np.array(images), ALPHA)
        print(f"{changed:4} of {images:6,}: {ours:7.3f} {once:7.3f}  ratio {ours / once:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000))
