from __future__ import annotations

import numpy as np
from onnx.helper import make_node

from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.passes.run import run_passes


def test_remove_unused_drops_dead_chains_and_initializers(build, operators):
    nodes = [make_node("Shape", ["x"], ["s"]), make_node("Neg", ["s"], ["t"]), make_node("Relu", ["x"], ["y"])]
    model, rewrites = run_passes(build(nodes, {"x": [2, 3]}, ["y"], {"w": np.ones(3, np.float32)}), [remove_unused])
    assert rewrites["remove_unused"] == 3
    assert operators(model) == ["Relu"]
    assert not model.graph.initializers
    assert remove_unused(model) == 0


def test_remove_unused_keeps_inputs_and_what_outputs_need(build, operators):
    nodes = [make_node("Add", ["x", "w"], ["a"]), make_node("Relu", ["a"], ["y"])]
    model = build(nodes, {"x": [2, 3], "unread": [1]}, ["y"], {"w": np.ones(3, np.float32)})
    assert remove_unused(model) == 0
    assert [value.name for value in model.graph.inputs] == ["x", "unread"]
