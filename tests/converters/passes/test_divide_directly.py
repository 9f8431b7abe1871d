from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.passes.divide_directly import divide_directly
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.passes.run import run_passes

ROOT = [make_node("Abs", ["x"], ["a"]), make_node("Reciprocal", ["a"], ["r"])]
SHAPE = {"x": ["batch", 3, 4]}


@pytest.mark.parametrize("order", [["x", "r"], ["r", "x"]])
def test_divide_directly_rewrites_and_keeps_outputs(build, evaluate, operators, rng, order):
    model = build([*ROOT, make_node("Mul", order, ["y"], name="product")], SHAPE, ["y"])
    model.graph.node("product").metadata_props[MODULE] = "mask.head.5"
    divided, rewrites = run_passes(model, [divide_directly, remove_unused])
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    assert rewrites["divide_directly"] == 1
    assert operators(divided) == ["Abs", "Div"]
    assert divided.graph.outputs[0].name == "y"
    assert divided.graph.node("product").metadata_props[MODULE] == "mask.head.5"
    np.testing.assert_allclose(evaluate(divided, {"x": x})[0], evaluate(model, {"x": x})[0], rtol=1e-6)
    assert divide_directly(divided) == 0


def test_divide_directly_takes_every_product_of_one_reciprocal(build, operators):
    nodes = [*ROOT, make_node("Mul", ["x", "r"], ["m"]), make_node("Mul", ["m", "r"], ["y"])]
    divided, rewrites = run_passes(build(nodes, SHAPE, ["y"]), [divide_directly, remove_unused])
    assert rewrites["divide_directly"] == 2
    assert operators(divided) == ["Abs", "Div", "Div"]


@pytest.mark.parametrize("factors", [["r", "r"], ["r", "s"], ["s", "r"]])
def test_divide_directly_takes_products_of_reciprocals(build, evaluate, operators, rng, factors):
    nodes = [
        *ROOT,
        make_node("Sigmoid", ["x"], ["b"]),
        make_node("Reciprocal", ["b"], ["s"]),
        make_node("Mul", factors, ["y"]),
        make_node("Mul", ["x", "r"], ["z"]),
        make_node("Mul", ["x", "s"], ["w"]),
    ]
    model = build(nodes, SHAPE, ["y", "z", "w"])
    divided, rewrites = run_passes(model, [divide_directly, remove_unused])
    x = {"x": rng.standard_normal((2, 3, 4)).astype(np.float32)}
    assert rewrites["divide_directly"] == 3
    assert "Mul" not in operators(divided)
    np.testing.assert_allclose(evaluate(divided, x), evaluate(model, x), rtol=1e-6)
    assert divide_directly(divided) == 0


def test_divide_directly_declines_a_reciprocal_that_something_else_needs(build):
    nodes = [*ROOT, make_node("Mul", ["x", "r"], ["y"]), make_node("Neg", ["r"], ["z"])]
    assert divide_directly(build(nodes, SHAPE, ["y", "z"])) == 0
    assert divide_directly(build(nodes[:-1], SHAPE, ["y", "r"])) == 0


def test_divide_directly_declines_other_products(build):
    assert divide_directly(build([*ROOT[:1], make_node("Mul", ["x", "a"], ["y"])], SHAPE, ["y"])) == 0
