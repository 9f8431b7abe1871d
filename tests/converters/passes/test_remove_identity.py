from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from ran_deploy.converters.passes.remove_identity import remove_identity
from ran_deploy.converters.passes.run import run_passes

NODES = {
    "Identity": make_node("Identity", ["a"], ["b"]),
    "Dropout": make_node("Dropout", ["a"], ["b"]),
    "Cast": make_node("Cast", ["a"], ["b"], to=onnx.TensorProto.FLOAT),
}


def between(build, node, outputs=("y",)):
    nodes = [make_node("Neg", ["x"], ["a"]), node, make_node("Relu", ["b"], ["y"])]
    return build(nodes, {"x": ["batch", 3]}, outputs, {"true": np.array(True), "ratio": np.float32(0.5)})


@pytest.mark.parametrize("name", NODES)
def test_remove_identity_connects_the_neighbours_and_keeps_outputs(build, operators, evaluate, rng, name):
    model, rewrites = run_passes(between(build, NODES[name]), [remove_identity])
    x = rng.standard_normal((2, 3)).astype(np.float32)
    assert rewrites["remove_identity"] == 1
    assert operators(model) == ["Neg", "Relu"]
    np.testing.assert_array_equal(evaluate(model, {"x": x})[0], np.maximum(-x, 0))
    assert remove_identity(model) == 0


def test_remove_identity_keeps_the_name_of_a_graph_output(build, operators):
    model = build([make_node("Relu", ["x"], ["a"]), make_node("Identity", ["a"], ["y"])], {"x": [2, 3]}, ["y"])
    model, _ = run_passes(model, [remove_identity])
    assert operators(model) == ["Relu"]
    assert model.graph.outputs[0].name == "y"


def test_remove_identity_removes_a_whole_chain(build, operators):
    nodes = [make_node("Identity", [a], [b]) for a, b in ("xa", "ab", "bc")]
    model, rewrites = run_passes(
        build([*nodes, make_node("Relu", ["c"], ["y"])], {"x": [2, 3]}, ["y"]), [remove_identity]
    )
    assert rewrites["remove_identity"] == 3
    assert operators(model) == ["Relu"]


def test_remove_identity_declines_between_input_and_output(build):
    assert remove_identity(build([make_node("Identity", ["x"], ["y"])], {"x": [2, 3]}, ["y"])) == 0


def test_remove_identity_keeps_the_last_between_input_and_output(build, operators):
    nodes = [make_node("Identity", ["x"], ["a"]), make_node("Identity", ["a"], ["y"])]
    model, rewrites = run_passes(build(nodes, {"x": [2, 3]}, ["y"]), [remove_identity])
    assert rewrites["remove_identity"] == 1
    assert operators(model) == ["Identity"]
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    assert remove_identity(model) == 0


def test_remove_identity_keeps_one_of_two_that_make_outputs_of_one_tensor(build, operators):
    nodes = [make_node("Neg", ["x"], ["a"]), make_node("Identity", ["a"], ["y"]), make_node("Identity", ["a"], ["z"])]
    model, rewrites = run_passes(build(nodes, {"x": [2, 3]}, ["y", "z"]), [remove_identity])
    assert rewrites["remove_identity"] == 1
    assert operators(model) == ["Neg", "Identity"]
    assert [value.name for value in model.graph.outputs] == ["y", "z"]


def test_remove_identity_declines_between_two_outputs(build):
    assert remove_identity(between(build, NODES["Identity"], outputs=("y", "a", "b"))) == 0


def test_remove_identity_declines_dropout_in_training_mode(build):
    assert remove_identity(between(build, make_node("Dropout", ["a", "ratio", "true"], ["b"]))) == 0


def test_remove_identity_declines_a_cast_that_converts(build):
    nodes = [
        make_node("Cast", ["x"], ["a"], to=onnx.TensorProto.FLOAT16),
        make_node("Cast", ["a"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    assert remove_identity(build(nodes, {"x": [2, 3]}, ["y"])) == 0
