from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from ran_deploy.converters.signs import find_non_negative


def sign_of(build, nodes, constants=None):
    model = build(nodes, {"x": [2, 3, 4, 6]}, ["y"], constants)
    return model.graph.outputs[0] in find_non_negative(model.graph)


RELU = make_node("Relu", ["x"], ["p"])
HALVES = {"h": np.array([[[0.5]]], np.float32), "m": np.array([[[-0.5]]], np.float32)}
HALVES |= {"zero": np.float32(0), "six": np.float32(6), "below": np.float32(-1)}


@pytest.mark.parametrize(
    "nodes",
    [
        [make_node("Relu", ["x"], ["y"])],
        [make_node("Sigmoid", ["x"], ["y"])],
        [RELU, make_node("MaxPool", ["p"], ["y"], kernel_shape=[2, 2])],
        [RELU, make_node("GlobalAveragePool", ["p"], ["q"]), make_node("Flatten", ["q"], ["y"])],
        [RELU, make_node("Sigmoid", ["x"], ["s"]), make_node("Mul", ["p", "s"], ["y"])],
        [RELU, make_node("Add", ["p", "h"], ["y"])],
        [make_node("Clip", ["x", "zero", "six"], ["y"])],
        [RELU, make_node("Clip", ["p", "", "six"], ["y"])],
        [RELU, make_node("Concat", ["p", "p"], ["y"], axis=1)],
        [RELU, make_node("AveragePool", ["p"], ["y"], kernel_shape=[2, 2])],
        [RELU, make_node("Max", ["x", "p"], ["y"])],
        [make_node("HardSigmoid", ["x"], ["y"])],
    ],
)
def test_what_cannot_be_negative_is_found(build, nodes):
    assert sign_of(build, nodes, HALVES)


@pytest.mark.parametrize(
    "nodes",
    [
        [make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])],
        [RELU, make_node("Add", ["p", "x"], ["y"])],
        [RELU, make_node("Add", ["p", "m"], ["y"])],
        [RELU, make_node("Neg", ["p"], ["y"])],
        [RELU, make_node("Mul", ["p", "m"], ["y"])],
        [make_node("Clip", ["x", "", "six"], ["y"])],
        [make_node("Clip", ["x", "below", "six"], ["y"])],
        [RELU, make_node("Clip", ["p", "", "below"], ["y"])],
        [RELU, make_node("Concat", ["p", "x"], ["y"], axis=1)],
        [RELU, make_node("Min", ["x", "p"], ["y"])],
        [make_node("HardSwish", ["x"], ["y"])],
    ],
)
def test_what_may_be_negative_is_not(build, nodes):
    assert not sign_of(build, nodes, HALVES)


@pytest.mark.parametrize(("point", "expected"), [(np.uint8(0), True), (np.uint8(128), False)])
def test_unsigned_numbers_stand_for_negative_ones_below_the_zero_point(build, point, expected):
    constants = {"c": np.uint8([7, 200]), "s": np.float32(0.1), "p": point}
    assert sign_of(build, [make_node("DequantizeLinear", ["c", "s", "p"], ["y"])], constants) is expected


def test_quantisation_without_a_zero_point_keeps_the_sign(build):
    nodes = [RELU, make_node("QuantizeLinear", ["p", "s"], ["q"]), make_node("DequantizeLinear", ["q", "s"], ["y"])]
    assert sign_of(build, nodes, {"s": np.float32(0.1)})


@pytest.mark.parametrize(("target", "expected"), [(TensorProto.INT8, False), (TensorProto.FLOAT16, True)])
def test_a_cast_keeps_the_sign_where_the_target_cannot_wrap_round(build, target, expected):
    nodes = [RELU, make_node("Cast", ["p"], ["c"], to=target), make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)]
    assert sign_of(build, nodes) is expected


@pytest.mark.parametrize(("mode", "expected"), [("nearest", True), ("linear", True), ("cubic", False)])
def test_interpolation_keeps_the_sign_unless_it_is_cubic(build, mode, expected):
    resize = make_node("Resize", ["p", "", "s"], ["y"], mode=mode)
    assert sign_of(build, [RELU, resize], {"s": np.array([1, 1, 2, 2], np.float32)}) is expected


def test_nothing_in_a_ran_called_non_negative_is_negative(float_graph, images):
    from ran_deploy.converters.quantize import with_outputs
    from ran_deploy.converters.simplify import run_unoptimised

    names = [value.name for value in find_non_negative(float_graph.graph) if not value.is_graph_input()]
    relus = sum(node.op_type == "Relu" for node in float_graph.graph)
    assert len(names) > relus  # sigmoids and pools among them
    arrays = run_unoptimised(with_outputs(float_graph, names), {"image": images})
    assert min(float(array.min()) for array in arrays[1:]) >= 0
