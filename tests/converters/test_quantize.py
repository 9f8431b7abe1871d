from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import array_of, check, model_bytes, model_from_bytes
from ran_deploy.converters.qdq import find_activation_pairs, recorded_range
from ran_deploy.converters.quantize import (
    find_calibrated_tensors,
    find_quantized_tensors,
    insert_qdq,
    quantize,
    symmetric_scale,
    with_outputs,
)
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import CalibrationError, ConversionError


@pytest.fixture
def two_layers(build, rng):
    """x -> Relu -> two Convs that share their input -> Add -> mean -> Gemm, in odd widths."""
    constants = {
        "w1": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((5, 3, 1, 1)).astype(np.float32),
        "b2": rng.standard_normal(5).astype(np.float32),
        "w3": rng.standard_normal((7, 5)).astype(np.float32),
        "b3": rng.standard_normal(7).astype(np.float32),
    }
    nodes = [
        make_node("Relu", ["x"], ["r"]),
        make_node("Conv", ["r", "w1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        make_node("Conv", ["r", "w2", "b2"], ["c2"], name="second"),
        make_node("Add", ["c1", "c2"], ["a"], name="sum"),
        make_node("GlobalAveragePool", ["a"], ["p"]),
        make_node("Flatten", ["p"], ["f"]),
        make_node("Gemm", ["f", "w3", "b3"], ["y"], name="last", transB=1),
    ]
    return build(nodes, {"x": ["batch", 3, 6, 4]}, ["y"], constants)


RANGES = {"r": 3.0, "f": 2.0}


def test_the_base_rule_takes_the_data_of_convolutions_and_gemm_once(two_layers):
    assert find_quantized_tensors(two_layers) == ["r", "f"]


def test_calibration_covers_what_any_dialect_quantises(two_layers):
    assert find_calibrated_tensors(two_layers) == ["r", "f", "c1", "c2"]


def test_a_tensor_that_only_a_relu_reads_is_calibrated_behind_it(build):
    nodes = [make_node("Conv", ["x", "w"], ["c"]), make_node("Relu", ["c"], ["r"]), make_node("Neg", ["r"], ["y"])]
    model = build(nodes, {"x": [2, 3, 4, 5]}, ["y"], {"w": np.ones((2, 3, 1, 1), np.float32)})
    assert find_calibrated_tensors(model) == ["x", "r"]


def test_a_tensor_that_only_relu6_reads_is_calibrated_behind_it(build):
    constants = {"w": np.ones((2, 3, 1, 1), np.float32), "zero": np.float32(0), "six": np.float32(6)}
    nodes = [make_node("Conv", ["x", "w"], ["c"]), make_node("Clip", ["c", "zero", "six"], ["r"])]
    model = build([*nodes, make_node("Neg", ["r"], ["y"])], {"x": [2, 3, 4, 5]}, ["y"], constants)
    assert find_calibrated_tensors(model) == ["x", "r"]


def test_linear_layers_over_the_last_axis_are_quantised(build, rng):
    """nn.Linear of more than two axes is exported as MatMul; the columns of its weights are the outputs."""
    weight = rng.standard_normal((5, 7)).astype(np.float32) * np.array([1, 2, 4, 8, 16, 32, 64], np.float32)
    model = build([make_node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 3, 5]}, ["y"], {"w": weight})
    expected = model.clone()
    assert insert_qdq(model, {"x": 3.0}) == 1
    check(model)
    dequantize = model.graph.outputs[0].producer().inputs[1].producer()
    np.testing.assert_allclose(array_of(dequantize.inputs[1]), np.abs(weight).max(axis=0) / 127, rtol=1e-6)
    x = rng.uniform(-3, 3, (2, 3, 5)).astype(np.float32)
    found, wanted = (run_unoptimised(graph, {"x": x})[0] for graph in (model, expected))
    np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


def test_products_of_two_activations_are_not_quantised(build):
    model = build([make_node("MatMul", ["x", "x"], ["y"])], {"x": [2, 5, 5]}, ["y"])
    assert find_quantized_tensors(model) == []


def test_computed_weights_are_not_quantised(build):
    nodes = [make_node("Neg", ["v"], ["w"]), make_node("Conv", ["x", "w"], ["y"])]
    model = build(nodes, {"x": [2, 3, 4, 5]}, ["y"], {"v": np.ones((2, 3, 1, 1), np.float32)})
    assert find_quantized_tensors(model) == []


def test_with_outputs_adds_tensors_and_leaves_the_model(two_layers, rng):
    before = model_bytes(two_layers)
    model = with_outputs(two_layers, ["r", "y", "f", "r"])
    x = rng.standard_normal((2, 3, 6, 4)).astype(np.float32)
    outputs = run_unoptimised(model, {"x": x})
    assert [value.name for value in model.graph.outputs] == ["y", "r", "f"]
    np.testing.assert_array_equal(outputs[1], np.maximum(x, 0))
    assert model_bytes(two_layers) == before


def test_with_outputs_names_a_tensor_that_does_not_exist(two_layers):
    with pytest.raises(ConversionError, match="no tensor 'nobody'"):
        with_outputs(two_layers, ["r", "nobody"])


def test_insert_qdq_quantises_by_the_base_rule(two_layers, operators):
    assert insert_qdq(two_layers, RANGES) == 3
    check(two_layers)
    assert Counter(operators(two_layers))["QuantizeLinear"] == 2
    assert Counter(operators(two_layers))["DequantizeLinear"] == 2 + 3
    for pair, limit in zip(find_activation_pairs(two_layers.graph), (3.0, 2.0), strict=True):
        assert array_of(pair.quantize.inputs[1]) == np.float32(limit / 127)
        assert array_of(pair.quantize.inputs[2]).dtype == np.int8
        assert array_of(pair.quantize.inputs[2]) == 0
    assert {"b2", "b3"} <= set(two_layers.graph.initializers)
    assert not {"w1", "w2", "w3"} & set(two_layers.graph.initializers)


def test_insert_qdq_computes_what_rounding_by_hand_gives(two_layers, build, evaluate, rng):
    """Oracle: float weights and inputs replaced by their nearest grid points, in float64 closed form."""
    weights = {name: array_of(two_layers.graph.initializers[name]) for name in ("w1", "w2", "w3", "b2", "b3")}
    insert_qdq(two_layers, RANGES)

    def snapped(x, limit):
        step = limit / 127
        return np.clip(np.rint(x / step), -128, 127) * step

    w = {k: np.stack([snapped(row, np.abs(row).max()) for row in weights[k]]) for k in ("w1", "w2", "w3")}
    x = rng.standard_normal((2, 3, 6, 4)).astype(np.float32)
    r = snapped(np.maximum(x, 0), 3.0)
    padded = np.pad(r, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    a = np.einsum("nchwij,ocij->nohw", windows, w["w1"]) + np.einsum("nchw,oc->nohw", r, w["w2"][..., 0, 0])
    f = snapped((a + weights["b2"][:, None, None]).mean((2, 3)), 2.0)
    wanted = f @ w["w3"].T + weights["b3"]
    # Float32 sums may move a mean across a rounding boundary of `f`: one step of 2 / 127 times a weight of 3.
    np.testing.assert_allclose(evaluate(two_layers, {"x": x})[0], wanted, atol=1e-4)


def test_gemm_weights_have_their_scales_on_the_output_axis(build, rng):
    weight = rng.standard_normal((5, 7)).astype(np.float32)
    model = build([make_node("Gemm", ["x", "w"], ["y"])], {"x": ["batch", 5]}, ["y"], {"w": weight})
    insert_qdq(model, {"x": 4.0})
    check(model)
    (dequantize,) = (n for n in model.graph if n.op_type == "DequantizeLinear" and array_of(n.inputs[0]) is not None)
    assert dequantize.attributes.get_int("axis") == 1
    np.testing.assert_array_equal(array_of(dequantize.inputs[1]), np.abs(weight).max(axis=0) / np.float32(127))


def test_nodes_kept_in_float_keep_their_float_input(two_layers, operators):
    assert insert_qdq(two_layers, {"r": 3.0}, keep_float=["last", "second"]) == 1
    assert Counter(operators(two_layers))["QuantizeLinear"] == 1
    by_name = {node.name: node for node in two_layers.graph}
    assert by_name["second"].inputs[0].name == "r"
    assert array_of(by_name["second"].inputs[1]).dtype == np.float32


def test_an_unknown_node_to_keep_is_refused(two_layers):
    with pytest.raises(ConversionError, match="no node 'nobody'"):
        insert_qdq(two_layers, RANGES, keep_float=["nobody"])


def test_ranges_survive_serialisation(two_layers):
    insert_qdq(two_layers, RANGES | {"a": 0.1, "c1": 7.25})
    again = model_from_bytes(model_bytes(two_layers))
    values = {output.name: output for node in again.graph for output in node.outputs}
    assert [recorded_range(values[name]) for name in ("r", "f", "a", "c1")] == [3.0, 2.0, 0.1, 7.25]


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0])
def test_impossible_ranges_are_refused(two_layers, limit):
    with pytest.raises(CalibrationError, match=r"'f' has range .*; expected a finite max"):
        insert_qdq(two_layers, {"r": 3.0, "f": limit})


def test_a_missing_range_is_named(two_layers):
    with pytest.raises(CalibrationError, match="No range for 1 tensors, 'f' among them"):
        insert_qdq(two_layers, {"r": 3.0})


def test_weights_that_are_not_finite_are_refused(build):
    weight = np.full((2, 3, 1, 1), np.nan, np.float32)
    model = build([make_node("Conv", ["x", "w"], ["y"])], {"x": [2, 3, 4, 5]}, ["y"], {"w": weight})
    with pytest.raises(CalibrationError, match="'w' holds NaN"):
        insert_qdq(model, {"x": 1.0})


def test_a_tensor_of_zeros_and_a_channel_of_zeros_work(build, evaluate):
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1] = 0.25
    model = build([make_node("Conv", ["x", "w"], ["y"])], {"x": [2, 3, 4, 5]}, ["y"], {"w": weight})
    insert_qdq(model, {"x": 0.0})
    check(model)
    found = evaluate(model, {"x": np.ones((2, 3, 4, 5), np.float32)})[0]
    np.testing.assert_array_equal(found[:, 0], np.zeros((2, 4, 5)))
    np.testing.assert_allclose(found[:, 1], np.full((2, 4, 5), 0.75), rtol=1e-6)


def test_symmetric_scale_is_the_largest_weight_in_127_steps(rng):
    weight = rng.standard_normal((4, 3, 2, 5)).astype(np.float32)
    weight[2] = 0
    scale = symmetric_scale(weight, 0)
    wanted = np.abs(weight).reshape(4, -1).max(1) / 127
    wanted[2] = wanted.max()  # zeros are exact in any step
    np.testing.assert_allclose(scale, wanted, rtol=1e-7)
    np.testing.assert_array_equal(symmetric_scale(np.zeros((2, 3), np.float32), 1), np.ones(3))


def test_quantize_rounds_halves_to_even_and_saturates():
    x = np.array([[0.5, 1.5, 2.5, -2.5, 200], [1, 3, -5, 127 * 2, -999]], np.float32)
    found = quantize(x, np.array([1, 2], np.float32), 0)
    np.testing.assert_array_equal(found, [[0, 2, 2, -2, 127], [0, 2, -2, 127, -128]])
    assert found.dtype == np.int8


def test_a_ran_in_int8_stays_close_to_float(float_graph, artifact, images):
    check(artifact)
    found, wanted = (run_unoptimised(model, {"image": images})[0] for model in (artifact, float_graph))
    # Measured 0.012 on these images; a wrong scale or axis gives 0.2 and more.
    assert np.linalg.norm(found - wanted) < 0.04 * np.linalg.norm(wanted)
