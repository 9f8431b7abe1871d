from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_node

from ran_deploy.converters.dialects import lower
from ran_deploy.converters.dialects.onnxruntime import bias_steps, unsigned_grid
from ran_deploy.converters.graph import array_of, model_bytes
from ran_deploy.converters.qdq import find_activation_pairs
from ran_deploy.converters.quantize import find_quantized_tensors, insert_qdq
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import CalibrationError
from ran_deploy.precision import Precision


def optimised(data: bytes, folder: Path) -> tuple[onnxruntime.InferenceSession, Counter]:
    """Return a session, and the operators ONNX Runtime made of the graph before layout changes."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(folder / "optimised.onnx").graph
    return session, Counter(node.op_type for node in graph.node)


def test_onnx_runtime_runs_every_convolution_in_int8(artifact, tmp_path):
    lowered = lower(artifact, "onnxruntime", Precision.INT8)
    _, operators = optimised(model_bytes(lowered), tmp_path)
    assert operators["QLinearConv"] == sum(node.op_type == "Conv" for node in artifact.graph)
    assert operators["Conv"] == 0
    assert operators["QLinearAdd"] == 0


def test_beyond_the_base_rule_only_convolutions_are_rounded(artifact):
    """Sums and gates in int8 were measured to add half as much error again, or more."""
    base = {pair.quantize.inputs[0].name for pair in find_activation_pairs(artifact.graph)}
    pairs = find_activation_pairs(lower(artifact, "onnxruntime", Precision.INT8).graph)
    further = [tensor for pair in pairs if (tensor := pair.quantize.inputs[0]).name not in base]
    assert len(further) > 10
    for tensor in further:
        node = tensor.producer()
        if node.op_type == "Relu":
            node = node.inputs[0].producer()
        assert node.op_type == "Conv"


def test_onnx_runtime_computes_what_the_graph_says(artifact, images, tmp_path):
    lowered = lower(artifact, "onnxruntime", Precision.INT8)
    session, _ = optimised(model_bytes(lowered), tmp_path)
    found, wanted = session.run(None, {"image": images})[0], run_unoptimised(lowered, {"image": images})[0]
    assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)


def test_bright_grey_images_do_not_overflow(build, tmp_path):
    """The worst case: neighbouring channels at their maximum, weights too; without VNNI int16 used to saturate."""
    nodes = [make_node("Conv", ["x", "w"], ["c"]), make_node("Relu", ["c"], ["r"]), make_node("Neg", ["r"], ["y"])]
    model = build(nodes, {"x": ["batch", 3, 9, 8]}, ["y"], {"w": np.full((8, 3, 3, 3), 0.5, np.float32)})
    insert_qdq(model, {"x": 2.0, "r": 27.0})
    session, operators = optimised(model_bytes(lower(model, "onnxruntime", Precision.INT8)), tmp_path)
    assert operators["QLinearConv"] == 1
    found = session.run(None, {"x": np.full((2, 3, 9, 8), 2.0, np.float32)})[0]
    np.testing.assert_allclose(found, np.full((2, 8, 7, 6), -3 * 9 * 0.5 * 2.0), rtol=0.01)


def test_every_activation_is_unsigned(artifact):
    pairs = find_activation_pairs(lower(artifact, "onnxruntime", Precision.INT8).graph)
    points = {int(array_of(p.quantize.inputs[2])) for p in pairs}
    assert {array_of(p.quantize.inputs[2]).dtype for p in pairs} == {np.dtype(np.uint8)}
    assert points == {0, 128}


def test_biases_become_int32_in_steps_of_both_scales(artifact):
    lowered = lower(artifact, "onnxruntime", Precision.INT8)
    floats = {node.name: node for node in artifact.graph}
    compared = 0
    for node in lowered.graph:
        if node.op_type != "Conv" or len(node.inputs) < 3:
            continue
        data, weight, bias = (value.producer() for value in node.inputs)
        assert array_of(bias.inputs[0]).dtype == np.int32
        scale = array_of(data.inputs[1]) * array_of(weight.inputs[1])
        np.testing.assert_allclose(array_of(bias.inputs[1]), scale, rtol=1e-6)
        wanted = array_of(floats[node.name].inputs[2])
        np.testing.assert_allclose(array_of(bias.inputs[0]) * scale, wanted, atol=scale.max())
        compared += 1
    assert compared > 10


def test_a_pool_behind_a_convolution_runs_in_int8_at_its_scale(build, rng, tmp_path):
    nodes = [
        make_node("Conv", ["x", "w"], ["c"]),
        make_node("MaxPool", ["c"], ["p"], kernel_shape=[3, 3], strides=[2, 2]),
        make_node("MaxPool", ["p"], ["q"], kernel_shape=[2, 2]),
        make_node("Neg", ["q"], ["y"]),
    ]
    constants = {"w": rng.standard_normal((8, 4, 1, 1)).astype(np.float32)}
    model = build(nodes, {"x": ["batch", 4, 12, 11]}, ["y"], constants)
    insert_qdq(model, {"x": 4.0, "c": 9.0})
    lowered = lower(model, "onnxruntime", Precision.INT8)
    pools = [node for node in lowered.graph if node.op_type == "MaxPool"]
    for pool in pools:
        before, (after,) = pool.inputs[0].producer(), pool.outputs[0].consumers()
        assert [array_of(after.inputs[i]) for i in (1, 2)] == [array_of(before.inputs[i]) for i in (1, 2)]
    _, operators = optimised(model_bytes(lowered), tmp_path)
    assert (len(pools), operators["QLinearConv"], operators["DequantizeLinear"]) == (2, 1, 1)


def test_convolutions_may_share_a_bias(build, rng, tmp_path):
    """ONNX Runtime refuses two nodes of one name."""
    nodes = [make_node("Conv", ["x", "w1", "b"], ["a"]), make_node("Conv", ["a", "w2", "b"], ["y"])]
    constants = {name: rng.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
    constants["b"] = rng.standard_normal(4).astype(np.float32)
    model = build(nodes, {"x": ["batch", 4, 6, 5]}, ["y"], constants)
    insert_qdq(model, {"x": 4.0, "a": 9.0})
    session, _ = optimised(model_bytes(lower(model, "onnxruntime", Precision.INT8)), tmp_path)
    assert session.get_outputs()[0].name == "y"


def test_what_a_concat_joins_has_the_scale_of_the_whole(build, rng, tmp_path):
    nodes = [
        make_node("Conv", ["x", "w1"], ["a"]),
        make_node("Relu", ["a"], ["ra"]),
        make_node("Conv", ["x", "w2"], ["b"]),
        make_node("Relu", ["b"], ["rb"]),
        make_node("Concat", ["ra", "rb"], ["c"], axis=1),
        make_node("Conv", ["c", "w3"], ["d"]),
        make_node("Relu", ["d"], ["e"]),
        make_node("Neg", ["e"], ["y"]),
    ]
    sizes = {"w1": (8, 4, 1, 1), "w2": (16, 4, 1, 1), "w3": (8, 24, 1, 1)}
    constants = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    model = build(nodes, {"x": ["batch", 4, 6, 5]}, ["y"], constants)
    ranges = {"x": 4.0, "ra": 3.0, "rb": 12.0, "c": 12.0, "e": 90.0}
    insert_qdq(model, ranges)
    lowered = lower(model, "onnxruntime", Precision.INT8)
    concat = next(node for node in lowered.graph if node.op_type == "Concat")
    (after,) = concat.outputs[0].consumers()
    pairs = [value.producer() for value in concat.inputs] + [after]
    assert [array_of(pair.inputs[1]) for pair in pairs] == [np.float32(12 / 255)] * 3
    assert [array_of(pair.inputs[2]) for pair in pairs] == [0] * 3
    _, operators = optimised(model_bytes(lowered), tmp_path)
    assert (operators["QLinearConv"], operators["Conv"], operators["Concat"]) == (3, 0, 0)


@pytest.mark.parametrize("groups", [2, 8])
def test_convolutions_behind_relu6_and_in_groups_run_in_int8(build, rng, groups, tmp_path):
    """The range is exactly the six that Clip cuts at, as calibration finds it."""
    nodes = [
        make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], group=groups),
        make_node("Clip", ["c", "zero", "six"], ["r"]),
        make_node("Neg", ["r"], ["y"]),
    ]
    weight = rng.standard_normal((8, 8 // groups, 3, 3)).astype(np.float32)
    constants = {"w": weight, "b": rng.standard_normal(8).astype(np.float32)}
    constants |= {"zero": np.float32(0), "six": np.float32(6)}
    model = build(nodes, {"x": ["batch", 8, 6, 5]}, ["y"], constants)
    insert_qdq(model, {"x": 3.0, "r": 6.0})
    lowered = lower(model, "onnxruntime", Precision.INT8)
    session, operators = optimised(model_bytes(lowered), tmp_path)
    assert (operators["QLinearConv"], operators["Conv"], operators["Clip"]) == (1, 0, 0)
    x = rng.uniform(-3, 3, (2, 8, 6, 5)).astype(np.float32)
    found, wanted = session.run(None, {"x": x})[0], run_unoptimised(lowered, {"x": x})[0]
    np.testing.assert_allclose(found, wanted, atol=1.01 * 6 / 255)  # a step where rounding falls on the other side


def test_nodes_kept_in_float_stay_so(float_graph, ranges):
    model = float_graph.clone()
    kept = [node.name for node in model.graph if node.op_type in ("Conv", "Add", "Mul", "MaxPool", "Resize")]
    insert_qdq(model, ranges, keep_float=kept)
    pairs = find_activation_pairs(lower(model, "onnxruntime", Precision.INT8).graph)
    assert len(pairs) == 1  # the classifier's


def test_a_missing_range_is_named(float_graph, ranges):
    model = float_graph.clone()
    further = {*ranges} - {*find_quantized_tensors(model)}
    output = next(n.outputs[0].name for n in model.graph if n.op_type == "Conv" and n.outputs[0].name in further)
    insert_qdq(model, {name: limit for name, limit in ranges.items() if name != output})
    with pytest.raises(CalibrationError, match=f"'{output}' carries no calibrated range"):
        lower(model, "onnxruntime", Precision.INT8)


def test_a_signed_tensor_has_the_grid_of_s8():
    scale, zero_point = unsigned_grid(6.35, False)
    x = np.linspace(-6.35, 6.35, 1001)
    unsigned = (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale
    signed = np.clip(np.rint(x / np.float32(0.05)), -128, 127) * np.float32(0.05)
    np.testing.assert_allclose(unsigned, signed, rtol=1e-6)
    assert unsigned_grid(5.1, True) == (np.float32(5.1 / 255), 0)


def test_bias_steps_round_to_the_nearest_and_decline_what_int32_has_not():
    np.testing.assert_array_equal(bias_steps(np.float32([1, -0.25]), np.float32([0.25, 0.1])), [4, -2])
    assert bias_steps(np.float32([1]), np.float32([1e-12])) is None
    assert bias_steps(np.float32([0]), np.float32([0])) is None


def test_a_bias_int32_cannot_hold_stays_float(build, rng):
    constants = {"w": np.full((2, 3, 1, 1), 1e-9, np.float32), "b": np.float32([100, 200])}
    model = build([make_node("Conv", ["x", "w", "b"], ["y"])], {"x": ["batch", 3, 4, 5]}, ["y"], constants)
    insert_qdq(model, {"x": 1e-3})
    lowered = lower(model, "onnxruntime", Precision.INT8)
    found = run_unoptimised(lowered, {"x": rng.standard_normal((2, 3, 4, 5)).astype(np.float32)})[0]
    np.testing.assert_allclose(found[:, 1], np.full((2, 4, 5), 200), rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (1,), (), (2, 4)])
def test_a_bias_that_is_not_one_number_for_each_output_stays_float(build, rng, shape):
    """Gemm takes any shape that broadcasts to its output."""
    constants = {name: rng.standard_normal(size).astype(np.float32) for name, size in (("w", (4, 3)), ("b", shape))}
    model = build([make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"x": [2, 3]}, ["y"], constants)
    insert_qdq(model, {"x": 3.0})
    lowered = lower(model, "onnxruntime", Precision.INT8)
    (gemm,) = (node for node in lowered.graph if node.op_type == "Gemm")
    assert (array_of(gemm.inputs[2]) is None) == (shape == (4,))
    x = rng.uniform(-3, 3, (2, 3)).astype(np.float32)
    wanted = x @ constants["w"].T + constants["b"]
    np.testing.assert_allclose(run_unoptimised(lowered, {"x": x})[0], wanted, atol=0.2)  # some steps of 3/127 * w
