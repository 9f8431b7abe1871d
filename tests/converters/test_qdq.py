from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import RANGE, check
from ran_deploy.converters.qdq import (
    find_activation_pairs,
    insert_pair,
    recorded_range,
    requantize,
    scale_from_range,
)
from ran_deploy.errors import CalibrationError


@pytest.fixture
def model(build):
    return build([make_node("Neg", ["x"], ["a"]), make_node("Relu", ["a"], ["y"])], {"x": ["batch", 3]}, ["y"])


def middle(model):
    return model.graph.node(0).outputs[0]


def through(pair):
    """Let Relu read the pair's output."""
    pair.quantize.inputs[0].graph.node(-1).replace_input_with(0, pair.dequantize.outputs[0])


@pytest.mark.parametrize(
    ("zero_point", "wanted"),
    [(np.int8(0), [0, 0.5, 63.5]), (np.uint8(0), [0, 0.5, 99]), (np.uint8(128), [0, 0.5, 63.5])],
)
def test_a_pair_rounds_and_saturates_as_its_type_does(model, evaluate, zero_point, wanted):
    through(insert_pair(model.graph, middle(model), np.float32(0.5), zero_point))
    check(model)
    x = np.array([[200, -0.6, -99]], np.float32)
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], [wanted])


def test_pairs_are_found_and_change_type_together(model, evaluate):
    through(insert_pair(model.graph, middle(model), np.float32(0.5), np.int8(0)))
    (pair,) = find_activation_pairs(model.graph)
    requantize(model.graph, pair, np.float32(0.25), np.uint8(0))
    check(model)
    np.testing.assert_array_equal(evaluate(model, {"x": np.array([[-50, -0.3, 1]], np.float32)})[0], [[50, 0.25, 0]])


def test_a_tensor_without_range_is_named(model):
    with pytest.raises(CalibrationError, match="'a' carries no calibrated range"):
        recorded_range(middle(model))
    middle(model).metadata_props[RANGE] = repr(0.1)
    assert recorded_range(middle(model)) == 0.1


def test_scale_is_the_range_in_steps():
    assert scale_from_range(12.7, 127) == np.float32(0.1)
    assert scale_from_range(0, 127) == 1


@pytest.mark.parametrize("limit", [1e-45, 1e-38, 1e-320])
def test_scale_is_never_subnormal(limit):
    assert scale_from_range(limit, 255) == np.finfo(np.float32).tiny
