from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.calibration import ChannelSizes
from ran_deploy.converters.equalize import equalize, find_equalizable, reader_weights, scale

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
        "upright": rng.normal(0, 0.3, (CHANNELS, 7)),
        "square": rng.normal(0, 0.3, (7, 7)),
        "wide": rng.normal(0, 0.3, (7, CHANNELS * 9 * 7)),
        "slope": rng.uniform(0, 1, (CHANNELS, 1, 1)),
        "scales": np.array([1, 1, 2, 1.5]),
        "channel_scales": np.array([1, 2, 1, 1]),
        "w12": rng.normal(0, 0.3, (4, 2 * CHANNELS, 1, 1)),
        "roi": np.array([0, 0, 0, 0, 1, 1, 1, 1]),
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
    "flattened with its pixels": [*RELU, node("Flatten", "r", "f", axis=1), node("Gemm", "f wide", "y", transB=1)],
    "matrix product": [
        *NORM_RELU,
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f", axis=1),
        node("MatMul", "f upright", "y"),
    ],
    "norm behind": [
        *RELU,
        node("MaxPool", "r", "p", kernel_shape=[2, 2]),
        node("BatchNormalization", "p gamma beta mean variance", "y"),
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
    "product with every row": [*RELU, node("MatMul", "r square", "y")],
    "channels resized": [*RELU, node("Resize", "r  channel_scales", "p"), node("Conv", "p w12", "y")],
    "pixels filled in": [
        *RELU,
        node("Resize", "r roi scales", "p", coordinate_transformation_mode="tf_crop_and_resize"),
        node("Conv", "p w1", "y"),
    ],
    "indices of a pool": [
        *RELU,
        helper.make_node("MaxPool", ["r"], ["p", "i"], kernel_shape=[2, 2]),
        node("Conv", "p w1", "a"),
        node("Cast", "i", "b", to=TensorProto.FLOAT),
        node("Conv", "b depthwise", "y", group=CHANNELS),
    ],
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


FACTORS = np.array([1, 64, 1 / 32, 1, 2, 0.25])


@pytest.mark.parametrize("case", SCALABLE)
def test_channels_are_scaled_and_the_outputs_stay_the_same_to_the_last_bit(case, rng):
    model = model_of(SCALABLE[case], rng)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    expected, before = outputs(model, x), relu_outputs(model, x)
    (place,) = find_equalizable(model.graph)
    scale(model.graph, place, FACTORS)
    onnx.checker.check_model(ir.to_proto(model))
    np.testing.assert_array_equal(outputs(model, x), expected)
    np.testing.assert_array_equal(relu_outputs(model, x), before / FACTORS.astype(np.float32)[:, None, None])


def relu_outputs(model, x):
    twin = model.clone()
    relu = next(node for node in twin.graph if node.op_type == "Relu")
    twin.graph.outputs.append(relu.outputs[0])
    return ReferenceEvaluator(ir.to_proto(twin)).run(None, {"x": x})[1]


def sizes_of(array):
    wide = array.astype(np.float64)
    return ChannelSizes(np.abs(wide).max(axis=(0, 2, 3)), (wide**2).mean(axis=(0, 2, 3)))


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
    plain = relu_outputs(model, x)
    (place,) = find_equalizable(model.graph)
    scale(model.graph, place, np.array([1, 1, 1 / 128, 1, 1, 1]))
    expected, found = outputs(model, x), relu_outputs(model, x)
    assert found.max() > 30 * plain.max()
    done = equalize(model, {"r": sizes_of(found)})
    assert done.tensors == 1
    assert done.channels <= 2
    assert 32 <= done.largest_factor <= 512
    np.testing.assert_array_equal(outputs(model, x), expected)
    assert relu_outputs(model, x).max() < 4 * plain.max()
    assert equalize(model, {"r": sizes_of(relu_outputs(model, x))}).channels == 0


def test_a_sane_tensor_is_left_as_it_is(rng):
    model = model_of(SCALABLE["norm"], rng)
    before = ir.to_proto(model).SerializeToString()
    done = equalize(model, {"r": ChannelSizes(np.array([1, 2, 1.5, 3, 1, 1]), np.ones(CHANNELS))})
    assert (done.tensors, done.channels, done.largest_factor) == (0, 0, 1)
    assert ir.to_proto(model).SerializeToString() == before


def test_a_shared_constant_stays_as_it_is_for_its_other_readers(rng):
    nodes = [*SCALABLE["conv"][:-1], node("Conv", "r w1", "a"), node("Sigmoid", "c2", "s"), node("Conv", "s w1", "b")]
    nodes.insert(2, node("Conv", "x w0 b0", "c2", pads=[1, 1, 1, 1]))
    model = model_of([*nodes, node("Add", "a b", "y")], rng)
    x = rng.normal(size=(2, 3, 9, 7)).astype(np.float32)
    expected = outputs(model, x)
    (place,) = find_equalizable(model.graph)
    scale(model.graph, place, FACTORS)
    np.testing.assert_array_equal(outputs(model, x), expected)


def test_weights_of_readers_are_summed_up_by_output_and_input_channel(rng):
    model = model_of(SCALABLE["grouped"], rng)
    (place,) = find_equalizable(model.graph)
    weight = model.graph.initializers["grouped"].const_value.numpy().astype(np.float64)  # (4, 3), two groups
    spread = np.zeros((4, 6))
    spread[:2, :3], spread[2:, 3:] = weight[:2, :, 0, 0], weight[2:, :, 0, 0]
    found = reader_weights(place.readers[0], CHANNELS)
    np.testing.assert_allclose(found.largest, np.abs(spread))
    np.testing.assert_allclose(found.square, spread**2)
    assert found.pixels == 1
    flat = model_of(SCALABLE["flattened with its pixels"], rng)
    (place,) = find_equalizable(flat.graph)
    wide = flat.graph.initializers["wide"].const_value.numpy().reshape(7, CHANNELS, 9 * 7)
    found = reader_weights(place.readers[0], CHANNELS)
    np.testing.assert_allclose(found.largest, np.abs(wide).max(axis=2))
    assert found.pixels == 63


def test_the_noise_of_a_norm_is_that_of_its_data_alone(rng):
    model = model_of(SCALABLE["norm behind"], rng)
    (place,) = find_equalizable(model.graph)
    gamma, variance = (model.graph.initializers[name].const_value.numpy() for name in ("gamma", "variance"))
    found = reader_weights(place.readers[0], CHANNELS)
    assert not found.largest.any()
    np.testing.assert_allclose(np.diag(found.square), gamma**2 / (variance + 1e-5), rtol=1e-6)
