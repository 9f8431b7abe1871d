from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.converters.equalize import channel_factors, equalize, find_equalizable, weight_shares

CHANNELS = 6


def constants(rng):
    return {
        "w0": rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)),
        "b0": rng.normal(0, 0.1, CHANNELS),
        "gamma": rng.uniform(0.5, 2, CHANNELS),
        "beta": rng.normal(0, 0.5, CHANNELS),
        "mean": rng.normal(0, 0.1, CHANNELS),
        "variance": rng.uniform(0.5, 2, CHANNELS),
        "w1": rng.normal(0, 0.3, (4, CHANNELS, 1, 1)),
        "w2": rng.normal(0, 0.3, (5, CHANNELS, 3, 3)),
        "depthwise": rng.normal(0, 0.3, (CHANNELS, 1, 3, 3)),
        "grouped": rng.normal(0, 0.3, (4, CHANNELS // 2, 1, 1)),
        "linear": rng.normal(0, 0.3, (7, CHANNELS)),
        "wide": rng.normal(0, 0.3, (7, CHANNELS * 9 * 7)),
        "slope": rng.uniform(0, 1, (CHANNELS, 1, 1)),
        "scales": np.array([1, 1, 2, 1.5]),
        "six": np.array(6.0),
        "zero": np.array(0.0),
    }


def node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs.split(" "), [output], name=output, **attributes)


CONV = [node("Conv", "x w0 b0", "c", pads=[1, 1, 1, 1])]
NORM = [*CONV, node("BatchNormalization", "c gamma beta mean variance", "n")]
RELU = [*CONV, node("Relu", "c", "r")]
NORM_RELU = [*NORM, node("Relu", "n", "r")]
SCALABLE = {
    "conv": [*RELU, node("Conv", "r w1", "y")],
    "conv without bias": [
        node("Conv", "x w0", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Conv", "r w1", "y"),
    ],
    "norm": [*NORM_RELU, node("Conv", "r w2", "y")],
    "two readers": [
        *NORM_RELU,
        node("Conv", "r w1", "a"),
        node("Conv", "r w2", "b", pads=[1, 1, 1, 1]),
        node("Concat", "a b", "y", axis=1),
    ],
    "max pool": [*RELU, node("MaxPool", "r", "p", kernel_shape=[3, 3], strides=[2, 2]), node("Conv", "p w1", "y")],
    "resize": [*RELU, node("Resize", "r  scales", "p", mode="linear"), node("Conv", "p w1", "y")],
    "depthwise": [*RELU, node("Conv", "r depthwise", "y", group=CHANNELS)],
    "grouped": [*NORM_RELU, node("Conv", "r grouped", "y", group=2)],
    "classifier": [
        *NORM_RELU,
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f", axis=1),
        node("Gemm", "f linear", "y", transB=1),
    ],
    "norm that is read raw as well": [
        *CONV,
        node("BatchNormalization", "c gamma beta mean variance", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r w1", "a"),
        node("Conv", "c w1", "b"),
        node("Add", "a b", "y"),
    ],
}
DECLINED = {
    "the sum reads it too": [
        *RELU,
        node("Conv", "r depthwise", "a", group=CHANNELS, pads=[1, 1, 1, 1]),
        node("Add", "a r", "y"),
    ],
    "a graph output": [*RELU, node("Conv", "r w1", "y2"), node("Identity", "r", "y")],
    "someone reads it before the Relu": [
        *RELU,
        node("Conv", "r w1", "a"),
        node("Conv", "c w1", "b"),
        node("Add", "a b", "y"),
    ],
    "ReLU6": [*CONV, node("Clip", "c zero six", "r"), node("Conv", "r w1", "y")],
    "leaky": [*CONV, node("PRelu", "c slope", "r"), node("Conv", "r w1", "y")],
    "sigmoid behind": [*RELU, node("Sigmoid", "r", "s"), node("Conv", "s w1", "y")],
    "weights from a tensor": [*RELU, node("Identity", "w1", "w"), node("Conv", "r w", "y")],
    "flattened with its pixels": [*RELU, node("Flatten", "r", "f", axis=1), node("Gemm", "f wide", "y", transB=1)],
    "transposed": [*RELU, node("Transpose", "r", "t", perm=[0, 1, 3, 2]), node("Conv", "t w1", "y")],
}


def model_of(nodes, rng) -> ir.Model:
    arrays = constants(rng)
    used = {name for each in nodes for name in each.input}
    stored = {name: array.astype(np.float32) for name, array in arrays.items()}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 9, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items() if name in used],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def outputs(model, x):
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})[0]


@pytest.mark.parametrize("case", SCALABLE)
def test_channels_are_scaled_and_the_outputs_stay_the_same_to_the_last_bit(case, rng):
    model = model_of(SCALABLE[case], rng)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    expected = outputs(model, x)
    scaled = equalize(model, {"r": np.array([1, 6400, 0.005, 1, 0, 3])})
    assert scaled.tensors == 1
    assert scaled.channels >= 2
    assert scaled.largest_factor >= 4
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_array_equal(outputs(model, x), expected)


@pytest.mark.parametrize("case", DECLINED)
def test_what_would_change_the_outputs_is_left_alone(case, rng):
    model = model_of(DECLINED[case], rng)
    assert find_equalizable(model.graph) == []
    before = ir.to_proto(model).SerializeToString()
    assert equalize(model, {}).channels == 0
    assert ir.to_proto(model).SerializeToString() == before


def test_the_channel_that_stood_out_is_brought_down(rng):
    model = model_of(SCALABLE["norm"], rng)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)

    def maxima(model):
        twin = model.clone()
        relu = next(node for node in twin.graph if node.op_type == "Relu")
        twin.graph.outputs.append(relu.outputs[0])
        return ReferenceEvaluator(ir.to_proto(twin)).run(None, {"x": x})[1].max(axis=(0, 2, 3))

    gamma, beta = (model.graph.initializers[name] for name in ("gamma", "beta"))
    for value in (gamma, beta):
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32([1, 1, 128, 1, 1, 1]), name=value.name)
    weight = model.graph.initializers["w2"]
    shrunk = weight.const_value.numpy() / np.float32([1, 1, 128, 1, 1, 1])[:, None, None]
    weight.const_value = ir.tensor(shrunk, name="w2")
    before = maxima(model)
    equalize(model, {"r": before})
    after = maxima(model)
    assert before[2] > 30 * np.delete(before, 2).max()
    assert after[2] < 8 * np.delete(after, 2).max()
    assert equalize(model, {"r": maxima(model)}).channels == 0


def test_a_shared_constant_stays_as_it_is_for_its_other_readers(rng):
    nodes = [*SCALABLE["conv"][:-1], node("Conv", "r w1", "a"), node("Sigmoid", "c2", "s"), node("Conv", "s w1", "b")]
    nodes.insert(2, node("Conv", "x w0 b0", "c2", pads=[1, 1, 1, 1]))
    model = model_of([*nodes, node("Add", "a b", "y")], rng)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    expected = outputs(model, x)
    assert equalize(model, {"r": np.array([1, 6400, 0.005, 1, 2, 3])}).tensors == 1
    np.testing.assert_array_equal(outputs(model, x), expected)


def test_shares_are_of_each_output_channels_largest_weight():
    weight = np.array([[1.0, -4.0, 0.0], [10.0, 2.0, 0.0]]).reshape(2, 3, 1, 1)
    np.testing.assert_allclose(weight_shares(weight), [1.0, 1.0, 0.0])  # 10 / 10, 4 / 4
    np.testing.assert_allclose(weight_shares(weight[:1]), [0.25, 1.0, 0.0])
    grouped = np.array([[1.0, 2.0], [8.0, 4.0]]).reshape(2, 2, 1, 1)  # two groups of two inputs each
    np.testing.assert_allclose(weight_shares(grouped, groups=2), [0.5, 1.0, 1.0, 0.5])
    np.testing.assert_array_equal(weight_shares(np.zeros((2, 3, 1, 1))), [0, 0, 0])


def test_factors_are_powers_of_two_around_one_and_spare_idle_channels():
    factors = channel_factors(np.array([64.0, 1.0, 1 / 64, 0.0]), np.ones(4))
    np.testing.assert_array_equal(factors, [8, 1, 1 / 8, 1])  # sqrt of 64, 1, 1/64
    np.testing.assert_array_equal(channel_factors(np.array([1.0, 1.0]), np.array([1.0, 1 / 256])), [0.25, 4])
    np.testing.assert_array_equal(channel_factors(np.zeros(3), np.ones(3)), np.ones(3))
    np.testing.assert_array_equal(
        channel_factors(np.array([3.0, 1.0, 0.3]), np.ones(3)), np.ones(3)
    )  # nothing stands out
    extreme = channel_factors(np.array([1e30, 1e-30]), np.array([1.0, 0.0]))
    assert extreme.tolist() == [2.0**15, 2.0**-15]
