"""Int8 convolutions that OpenVINO scales twice, and the bias that keeps it from it."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
from onnx.helper import make_node

from ran_deploy.converters.forked_convolutions import bias_forked_convolutions
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.quantize import insert_qdq

SHAPE = (3, 8, 6, 5)
READERS = {
    "mean": [make_node("GlobalAveragePool", ["c"], ["m"])],
    "maximum": [make_node("GlobalMaxPool", ["c"], ["m"])],
    "pool": [make_node("AveragePool", ["c"], ["m"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "convolution": [make_node("Conv", ["c", "v"], ["m"])],
}


@pytest.fixture
def forked(build, rng):
    """c - reader(c), where c is an int8 convolution of |x| with a `bias` or none."""

    def make(reader="mean", bias=None):
        constants = {"w": rng.standard_normal((6, 8, 1, 1)).astype(np.float32)}
        constants["v"] = rng.standard_normal((6, 6, 1, 1)).astype(np.float32)
        if bias is not None:
            constants["b"] = np.full(6, bias, np.float32)
        inputs = ["r", "w"] + (["b"] if bias is not None else [])
        nodes = [make_node("Relu", ["x"], ["r"]), make_node("Conv", inputs, ["c"], name="conv"), *READERS[reader]]
        model = build([*nodes, make_node("Sub", ["c", "m"], ["y"])], {"x": ["batch", *SHAPE[1:]]}, ["y"], constants)
        insert_qdq(model, {"r": 4.0, "c": 20.0})
        return model

    return make


def in_openvino(model, x):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model_bytes(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([x])[0]


def error(model, evaluate, x):
    wanted = evaluate(model, {"x": x})[0]
    return np.linalg.norm(in_openvino(model, x) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("bias", [None, 0.0])
def test_openvino_computes_what_the_graph_says_with_the_bias_alone(forked, evaluate, rng, reader, bias):
    model = forked(reader, bias)
    x = rng.standard_normal(SHAPE).astype(np.float32)
    before, wrong = evaluate(model, {"x": x})[0], error(model, evaluate, x)
    assert bias_forked_convolutions(model.graph) == 1
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], before)
    assert error(model, evaluate, x) < 0.01
    assert bias_forked_convolutions(model.graph) == 0
    if wrong < 0.01:
        pytest.skip("OpenVINO is right by itself here: where its newest release is on every CPU, the bias can go")


def test_what_openvino_gets_right_is_left_alone(build, forked):
    assert bias_forked_convolutions(forked(bias=0.5).graph) == 0
    nodes = [make_node("Conv", ["x", "w"], ["c"]), make_node("GlobalAveragePool", ["c"], ["m"])]
    constants = {"w": np.ones((6, 8, 1, 1), np.float32)}
    single = build(nodes, {"x": ["batch", *SHAPE[1:]]}, ["m"], constants)
    insert_qdq(single, {"x": 4.0})
    assert bias_forked_convolutions(single.graph) == 0
    in_float = build([*nodes, make_node("Sub", ["c", "m"], ["y"])], {"x": ["batch", *SHAPE[1:]]}, ["y"], constants)
    assert bias_forked_convolutions(in_float.graph) == 0
