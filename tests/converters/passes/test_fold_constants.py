from __future__ import annotations

import numpy as np
from onnx.helper import make_node

from ran_deploy.converters.passes.fold_constants import fold_constants
from ran_deploy.converters.passes.run import run_passes


def scaled_twice(build, rng):
    nodes = [make_node("Mul", ["a", "b"], ["ab"]), make_node("Neg", ["ab"], ["c"]), make_node("Add", ["x", "c"], ["y"])]
    constants = {name: rng.standard_normal((1, 3, 1, 1)).astype(np.float32) for name in "ab"}
    return build(nodes, {"x": ["batch", 3, 4, 5]}, ["y"], constants)


def test_fold_constants_evaluates_a_chain_and_keeps_outputs(build, evaluate, operators, rng):
    model = scaled_twice(build, rng)
    folded, rewrites = run_passes(model, [fold_constants])
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    assert rewrites["fold_constants"] == 2
    assert operators(folded) == ["Add"]
    np.testing.assert_array_equal(evaluate(folded, {"x": x})[0], evaluate(model, {"x": x})[0])


def test_fold_constants_changes_nothing_the_second_time(build, rng):
    folded, _ = run_passes(scaled_twice(build, rng), [fold_constants])
    assert fold_constants(folded) == 0


def test_fold_constants_declines_what_depends_on_the_input(build, rng):
    model = build([make_node("Mul", ["x", "a"], ["y"])], {"x": [2, 3]}, ["y"], {"a": np.float32(2)})
    assert fold_constants(model) == 0


def test_fold_constants_declines_graph_outputs_and_quantised_weights(build, rng):
    nodes = [
        make_node("Neg", ["a"], ["y"]),
        make_node("DequantizeLinear", ["q", "s"], ["w"]),
        make_node("Add", ["x", "w"], ["z"]),
    ]
    constants = {"a": np.ones(3, np.float32), "q": np.ones(3, np.int8), "s": np.float32(2)}
    assert fold_constants(build(nodes, {"x": [3]}, ["y", "z"], constants)) == 0
