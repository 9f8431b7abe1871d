from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import defs, numpy_helper
from onnx.helper import make_node

from ran_deploy.converters.graph import RANGE, array_of, model_bytes
from ran_deploy.converters.half import lower_to_fp16, means_the_same
from ran_deploy.converters.quantize import insert_qdq
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
HALF = np.float32(0.5)


def relative_l2(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def types_of(model, op_type):
    """Return the types of everything float that nodes of one kind read and write."""
    values = [v for node in model.graph if node.op_type == op_type for v in (*node.inputs, *node.outputs)]
    return {value.dtype for value in values if value is not None and value.dtype in FLOATS}


def test_a_ran_in_fp16_stays_close_and_keeps_its_interface(float_graph, images):
    half = lower_to_fp16(float_graph)
    found, wanted = (run_unoptimised(model, {"image": images})[0] for model in (half, float_graph))
    assert found.dtype == np.float32
    assert relative_l2(found, wanted) < 3e-3  # measured 0.6e-3; FP16 has a relative step of 0.5e-3
    assert half.opset_imports[""] == 18
    assert half.graph.inputs[0].dtype == ir.DataType.UINT8


def test_everything_behind_the_prologue_is_fp16(float_graph):
    half = lower_to_fp16(float_graph)
    for op_type in ("Conv", "BatchNormalization", "Gemm", "Sigmoid", "MaxPool"):
        assert types_of(half, op_type) == {ir.DataType.FLOAT16}
    assert types_of(half, "Transpose") == {ir.DataType.FLOAT}
    scales = [node.inputs[2] for node in half.graph if node.op_type == "Resize"]
    assert scales
    assert {value.dtype for value in scales} == {ir.DataType.FLOAT}


def test_the_int8_graph_gets_fp16_scales_and_opset_19(artifact, images):
    half = lower_to_fp16(artifact)
    assert half.opset_imports[""] == 19
    assert types_of(half, "QuantizeLinear") == types_of(half, "DequantizeLinear") == {ir.DataType.FLOAT16}
    found, wanted = (run_unoptimised(model, {"image": images})[0] for model in (half, artifact))
    # Measured 0.009: values at rounding boundaries of int8 fall on the other side.
    assert relative_l2(found, wanted) < 0.03


def test_lowering_leaves_the_model_as_it_is(artifact):
    before = model_bytes(artifact)
    lower_to_fp16(artifact)
    assert model_bytes(artifact) == before


def test_float_inputs_and_outputs_are_cast_once(build, operators, rng):
    nodes = [make_node("Relu", ["x"], ["y"]), make_node("Add", ["x", "y"], ["z"])]
    half = lower_to_fp16(build(nodes, {"x": ["batch", 3]}, ["y", "z"]))
    assert sorted(operators(half)) == ["Add", "Cast", "Cast", "Cast", "Relu"]
    x = rng.standard_normal((2, 3)).astype(np.float32)
    y, z = run_unoptimised(half, {"x": x})
    np.testing.assert_array_equal(y, np.maximum(x.astype(np.float16), 0).astype(np.float32))
    assert z.dtype == np.float32


def test_small_variances_keep_their_effect(build, rng):
    """A variance of 1e-9 is 0 in FP16, and epsilon 1e-12 too: the norm would divide by zero."""
    constants = {"g": [1e-4, 2e-4], "b": [0.5, -0.5], "m": [0, 1e-3], "v": [1e-9, 4e-9]}
    constants = {name: np.array(values, np.float32) for name, values in constants.items()}
    node = make_node("BatchNormalization", ["x", *constants], ["y"], epsilon=1e-12)
    half = lower_to_fp16(build([node], {"x": ["batch", 2, 3, 4]}, ["y"], constants))
    x = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    gain = np.array([1e-4, 2e-4]) / np.sqrt(np.array([1e-9, 4e-9]) + 1e-12)
    shift = np.array([0.5, -0.5]) - np.array([0, 1e-3]) * gain
    wanted = x * gain[:, None, None] + shift[:, None, None]
    np.testing.assert_allclose(run_unoptimised(half, {"x": x})[0], wanted, rtol=2e-3, atol=4e-3)


def weighted(build, weight):
    node = make_node("Conv", ["x", "w"], ["y"])
    return build([node], {"x": ["batch", 3, 4, 5]}, ["y"], {"w": weight})


def test_scales_too_small_for_fp16_are_raised_with_the_weights_that_use_them(build, rng):
    weight = rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    weight[1] *= 1e-3  # its scale is about 2**-17
    model = weighted(build, weight)
    insert_qdq(model, {"x": 4.0})
    half = lower_to_fp16(model)
    (dequantize,) = (n for n in half.graph if n.op_type == "DequantizeLinear" and array_of(n.inputs[0]) is not None)
    stored, scale = array_of(dequantize.inputs[0]), array_of(dequantize.inputs[1]).astype(np.float64)
    assert scale.min() == 2.0**-14
    found = stored * scale[:, None, None, None]
    np.testing.assert_allclose(found[1], weight[1], atol=1.5 * 2.0**-15)  # half a new step and half an old one
    np.testing.assert_allclose(found[[0, 2, 3]], weight[[0, 2, 3]], atol=0.02)


def test_an_activation_scale_too_small_for_fp16_is_raised(build):
    model = weighted(build, np.ones((2, 3, 1, 1), np.float32))
    insert_qdq(model, {"x": 1e-3})
    half = lower_to_fp16(model)
    scales = [array_of(node.inputs[1]) for node in half.graph if node.op_type == "QuantizeLinear"]
    assert scales == [np.float16(2.0**-14)]


def test_weights_beyond_fp16_are_refused_by_name(build):
    with pytest.raises(ConversionError, match=r"Weight 'w' reaches 7e\+04; FP16 ends at 65504"):
        lower_to_fp16(weighted(build, np.full((2, 3, 1, 1), 7e4, np.float32)))


def test_the_bounds_of_clip_end_where_fp16_does(build, rng):
    constants = {"lowest": np.float32(-np.inf), "highest": np.float32(3.4e38)}
    half = lower_to_fp16(build([make_node("Clip", ["x", *constants], ["y"])], {"x": [2, 3]}, ["y"], constants))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(run_unoptimised(half, {"x": x})[0], x.astype(np.float16).astype(np.float32))


def test_a_node_whose_attribute_makes_it_float32_stays_so(build, rng):
    """ConstantOfShape has its type in an attribute, as no input gives it one."""
    nodes = [
        make_node("Shape", ["x"], ["s"]),
        make_node("ConstantOfShape", ["s"], ["c"], value=numpy_helper.from_array(np.float32([0.5]))),
        make_node("Add", ["x", "c"], ["y"]),
    ]
    half = lower_to_fp16(build(nodes, {"x": ["batch", 3]}, ["y"]))
    assert types_of(half, "Add") == {ir.DataType.FLOAT16}
    x = rng.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_allclose(run_unoptimised(half, {"x": x})[0], x + 0.5, rtol=2e-3, atol=2e-3)


def test_a_constant_that_is_also_a_scale_keeps_its_value_elsewhere(build):
    """GPUs may take 2**-20 for 0, so scales are raised to 2**-14; a factor is not."""
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "p"], ["q"]),
        make_node("DequantizeLinear", ["q", "s", "p"], ["d"]),
        make_node("Mul", ["d", "s"], ["y"]),
    ]
    half = lower_to_fp16(build(nodes, {"x": [2, 3]}, ["y"], {"s": np.float32(2.0**-20), "p": np.int8(0)}))
    found = {node.op_type: float(array_of(node.inputs[1])) for node in half.graph if node.op_type != "Cast"}
    assert found == {"QuantizeLinear": 2.0**-14, "DequantizeLinear": 2.0**-14, "Mul": 2.0**-20}


def test_a_constant_of_the_name_that_one_would_get_stays_apart(build, rng):
    nodes = [make_node("Mul", ["x", "w"], ["m"]), make_node("Relu", ["m"], ["w_fp16"])]
    half = lower_to_fp16(build([*nodes, make_node("Neg", ["w_fp16"], ["y"])], {"x": [2, 3]}, ["y"], {"w": HALF}))
    x = rng.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_allclose(run_unoptimised(half, {"x": x})[0], -np.maximum(0.5 * x, 0), rtol=1e-3)


def test_ranges_beyond_fp16_are_refused_by_name(build):
    model = weighted(build, np.ones((2, 3, 1, 1), np.float32))
    model.graph.node(0).outputs[0].metadata_props[RANGE] = "1e5"
    with pytest.raises(ConversionError, match=r"Tensor 'y' reaches 1e\+05"):
        lower_to_fp16(model)


def test_operators_unknown_in_opset_19_are_refused_by_name(build):
    nodes = [make_node("Conv", ["x", "w"], ["c"]), make_node("Shrink", ["c"], ["y"])]
    model = build(nodes, {"x": ["batch", 3, 4, 5]}, ["y"], {"w": np.ones((2, 3, 1, 1), np.float32)})
    insert_qdq(model, {"x": 1.0})
    assert lower_to_fp16(model).opset_imports[""] == 19
    next(node for node in model.graph if node.op_type == "Shrink").domain = "a.vendor"
    with pytest.raises(ConversionError, match="Shrink, not known to mean the same in opset 19"):
        lower_to_fp16(model)


def test_what_changed_in_opset_19_beyond_types_is_not_taken_for_the_same():
    every = {s.name for s in defs.get_all_schemas_with_history() if s.domain == "" and s.since_version <= 18}
    changed = {name for name in every if not means_the_same(ir.node(name, []), 18)}
    assert changed == {"If", "Loop", "Scan"}  # whose graphs inside are not lowered either
