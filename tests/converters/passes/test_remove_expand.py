from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.passes.remove_expand import remove_expand
from ran_deploy.converters.passes.run import run_passes

SIZES = {"sizes": np.array([1, 5, 1, 1])}  # from one channel to five; the batch stays dynamic
NORM = make_node("ReduceL2", ["x", "axes"], ["n"], keepdims=1)
EXPAND = make_node("Expand", ["n", "sizes"], ["e"])
CONSTANTS = SIZES | {"axes": np.array([1])}


def divided(build, *more, reader="Div", outputs=("y",)):
    nodes = [NORM, EXPAND, make_node(reader, ["x", "e"], ["y"]), *more]
    return build(nodes, {"x": ["batch", 5, 3, 4]}, outputs, CONSTANTS)


@pytest.mark.parametrize("reader", ["Div", "Mul", "Sub"])
def test_remove_expand_rewrites_and_keeps_outputs(build, evaluate, operators, rng, reader):
    model = divided(build, reader=reader)
    shorter, rewrites = run_passes(model, [remove_expand])
    x = rng.standard_normal((2, 5, 3, 4)).astype(np.float32)
    assert rewrites["remove_expand"] == 1
    assert operators(shorter) == ["ReduceL2", reader]
    np.testing.assert_array_equal(evaluate(shorter, {"x": x})[0], evaluate(model, {"x": x})[0])
    assert remove_expand(shorter) == 0


def test_remove_expand_declines_an_expand_that_is_an_output(build):
    assert remove_expand(divided(build, outputs=("y", "e"))) == 0


def test_remove_expand_declines_a_reader_that_does_not_broadcast(build):
    assert remove_expand(divided(build, make_node("Relu", ["e"], ["z"]), outputs=("y", "z"))) == 0


def test_remove_expand_declines_where_the_expand_makes_the_shape(build):
    nodes = [make_node("Expand", ["x", "sizes"], ["e"]), make_node("Add", ["e", "x"], ["y"])]
    model = build(nodes, {"x": [2, 1, 3, 4]}, ["y"], SIZES)
    assert remove_expand(model) == 0


def test_remove_expand_keeps_one_of_two_that_make_the_shape_together(build, evaluate, operators, rng):
    nodes = [
        make_node("Expand", ["x", "sizes"], ["d"]),
        make_node("Expand", ["z", "sizes"], ["e"]),
        make_node("Mul", ["d", "e"], ["y"]),
    ]
    model = build(nodes, {"x": [2, 1, 3, 4], "z": [2, 1, 3, 4]}, ["y"], SIZES)
    shorter, rewrites = run_passes(model, [remove_expand])
    feeds = {name: rng.standard_normal((2, 1, 3, 4)).astype(np.float32) for name in ("x", "z")}
    assert rewrites["remove_expand"] == 1
    assert operators(shorter) == ["Expand", "Mul"]
    np.testing.assert_array_equal(evaluate(shorter, feeds)[0], evaluate(model, feeds)[0])
    assert remove_expand(shorter) == 0
