from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.errors import ShapeError
from ran_deploy.runtime.runner import TensorSpec, infer_checked


class Sum:
    """A runner of two inputs: the smallest that shows which of them a message is about."""

    inputs = (
        TensorSpec(name="image", dtype="uint8", shape=(None, 4, 6, 3)),
        TensorSpec(name="offset", dtype="float32", shape=(None,)),
    )
    outputs = (TensorSpec(name="total", dtype="float32", shape=(None,)),)

    def infer(self, feeds):
        return {"total": feeds["image"].sum(axis=(1, 2, 3), dtype=np.float32) + feeds["offset"]}

    def close(self):
        pass


GOOD = {"image": np.ones((2, 4, 6, 3), np.uint8), "offset": np.array([0.5, 1.5], np.float32)}


def test_good_feeds_reach_the_runner():
    np.testing.assert_array_equal(infer_checked(Sum(), GOOD)["total"], [72.5, 73.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": np.zeros(2, np.float64)}, "Input 'offset' has type float64; this engine accepts float32"),
        ({"offset": np.zeros((2, 1), np.float32)}, r"Input 'offset' has shape \(2, 1\); this engine accepts \(N\)"),
        ({"image": np.ones((2, 6, 4, 3), np.uint8)}, r"'image' has shape \(2, 6, 4, 3\); .* accepts \(N, 4, 6, 3\)"),
        ({"image": np.ones((0, 4, 6, 3), np.uint8)}, r"Input 'image' has shape \(0, 4, 6, 3\)"),
        ({"image": np.ones((2, 4, 6, 3), np.int8)}, "Input 'image' has type int8; this engine accepts uint8"),
    ],
)
def test_the_bad_input_is_named_with_what_is_accepted(change, message):
    with pytest.raises(ShapeError, match=message):
        infer_checked(Sum(), {**GOOD, **change})


def test_a_missing_input_is_named_with_what_was_found():
    with pytest.raises(ShapeError, match=r"Input 'offset' is missing; found 'image'\."):
        infer_checked(Sum(), {"image": GOOD["image"]})
    with pytest.raises(ShapeError, match=r"Input 'image' is missing; found nothing\."):
        infer_checked(Sum(), {})
