from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.errors import ShapeError
from ran_deploy.manifest import AttentionRecord
from ran_deploy.verification.golden_masks import mask_test

RECORDS = (
    AttentionRecord(name="fine", module="a", height=4, width=6),
    AttentionRecord(name="coarse", module="b", height=2, width=3),
)


@pytest.fixture
def recorded(rng) -> np.ndarray:
    return rng.uniform(0.3, 0.6, (32, 30)).astype(np.float32)


def test_each_module_is_measured_over_all_inputs(recorded, rng):
    found = recorded.copy()
    found[:, 24:] += rng.normal(0, 0.005, (32, 6))
    test = mask_test(recorded, found, RECORDS, 0.03)
    a, b = (rows[:, 24:].astype(np.float64) for rows in (recorded, found))
    assert test.distances == {"fine": 0, "coarse": pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(1 + a))}
    assert test.passed
    assert test.joined("passed") == f"passed, of attention at most {test.distances['coarse']:.4f}"


@pytest.mark.parametrize("tolerance", [0.03, 0.06])
def test_the_factor_of_the_trunk_may_be_as_far_away_as_is_allowed(recorded, tolerance):
    inside, beyond = (
        mask_test(recorded, (1 + recorded) * (1 + share * tolerance) - 1, RECORDS, tolerance) for share in (0.99, 1.01)
    )
    assert inside.passed
    assert not beyond.passed
    assert "failed in the attention of" in beyond.joined("passed")
    assert f"{tolerance:.4f} is allowed" in beyond.joined("passed")


def test_masks_of_two_modules_exchanged_are_seen():
    records = tuple(AttentionRecord(name=name, module=name, height=2, width=2) for name in "ab")
    recorded = np.array([[0.4, 0.5, 0.6, 0.5, 0.5, 0.4, 0.5, 0.6]])
    assert not mask_test(recorded, np.roll(recorded, 4, axis=1), records, 0.03).passed


def test_a_value_that_is_not_finite_fails_its_module(recorded):
    found = recorded.copy()
    found[3, 25] = np.nan
    test = mask_test(recorded, found, RECORDS, 0.03)
    assert not test.passed
    assert test.joined("") == (
        "golden self-test failed in the attention of coarse: relative L2 is unknown, as values are NaN or infinite"
    )


def test_masks_of_another_network_are_refused(recorded):
    with pytest.raises(ShapeError, match="another network"):
        mask_test(recorded, recorded[:, :24], RECORDS, 0.03)
