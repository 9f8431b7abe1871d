from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx.helper import make_node

from ran_deploy.converters.graph import check
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.norms import find_norm_arithmetic

CHANNEL = [  # x / max(||x||, eps), as the exporter writes F.normalize
    make_node("ReduceL2", ["x", "axes"], ["n"], keepdims=1),
    make_node("Clip", ["n", "eps"], ["c"]),
    make_node("Div", ["x", "c"], ["m"]),
    make_node("Add", ["m", "one"], ["g"]),
    make_node("Mul", ["g", "x"], ["y"]),
]
SPATIAL = [  # (x - mean) / sqrt(variance + eps), then a sigmoid
    make_node("GlobalAveragePool", ["x"], ["mean"]),
    make_node("Sub", ["x", "mean"], ["d"]),
    make_node("Mul", ["d", "d"], ["s"]),
    make_node("GlobalAveragePool", ["s"], ["v"]),
    make_node("Add", ["v", "eps"], ["e"]),
    make_node("Sqrt", ["e"], ["q"]),
    make_node("Reciprocal", ["q"], ["r"]),
    make_node("Mul", ["d", "r"], ["m"]),
    make_node("Sigmoid", ["m"], ["y"]),
]
CONSTANTS = {"axes": np.array([1]), "eps": np.float32(1e-12), "one": np.float32(1)}


def graph_of(build, nodes):
    return build(nodes, {"x": ["batch", 5, 6, 4]}, ["y"], CONSTANTS)


def found_in(build, nodes):
    return [node.op_type for node in graph_of(build, nodes).graph if node in find_norm_arithmetic(node.graph)]


def test_a_division_by_the_norm_ends_at_the_quotient(build):
    assert found_in(build, CHANNEL) == ["ReduceL2", "Clip", "Div"]


def test_standardising_starts_at_the_square_and_ends_at_the_product(build):
    assert found_in(build, SPATIAL) == ["Mul", "GlobalAveragePool", "Add", "Sqrt", "Reciprocal", "Mul"]


def test_sums_gates_and_means_are_no_norms(build):
    nodes = [
        make_node("GlobalAveragePool", ["x"], ["p"]),
        make_node("Sigmoid", ["p"], ["s"]),
        make_node("Mul", ["x", "s"], ["g"]),
        make_node("Add", ["g", "x"], ["y"]),
    ]
    assert found_in(build, nodes) == []


def test_norms_larger_than_fp16_survive_it(build, evaluate, rng):
    """Five channels of about 300 have a norm of 700, but squares that sum to 450,000; FP16 ends at 65504."""
    x = (300 * rng.standard_normal((2, 5, 6, 4))).astype(np.float32)
    for nodes in (CHANNEL, SPATIAL):
        model = graph_of(build, nodes)
        half = lower_to_fp16(model)
        check(half)
        found, wanted = evaluate(half, {"x": x})[0], evaluate(model, {"x": x})[0]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, wanted, rtol=4e-3, atol=4e-3 * np.abs(wanted).max())  # a few steps of 2**-11


def test_only_norms_stay_float32_in_fp16(build):
    half = lower_to_fp16(graph_of(build, SPATIAL))
    types = {node.name or node.op_type: node.outputs[0].dtype for node in half.graph if node.op_type != "Cast"}
    assert types["Sub"] == types["Sigmoid"] == ir.DataType.FLOAT16
    assert types["Sqrt"] == types["Reciprocal"] == ir.DataType.FLOAT
