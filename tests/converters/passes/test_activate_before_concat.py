from __future__ import annotations

import numpy as np
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.passes.activate_before_concat import activate_before_concat
from ran_deploy.converters.passes.fold_batch_norm import fold_batch_norm
from ran_deploy.converters.passes.run import run_passes

PARAMETERS = ("gamma", "beta", "mean", "variance")
BRANCHES = [
    make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
    make_node("Conv", ["x", "w2"], ["b"]),
    make_node("Concat", ["a", "b"], ["c"], axis=1),
]
NORM = make_node("BatchNormalization", ["c", *PARAMETERS], ["n"], name="norm", epsilon=1e-3)


def joined(build, rng, nodes, outputs=("y",)):
    """Branches of 2 and 5 channels; `nodes` follow their Concat, c."""
    arrays = {name: rng.standard_normal(7).astype(np.float32) for name in PARAMETERS}
    arrays["variance"] = np.exp(arrays["variance"])
    arrays["w1"] = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    arrays["w2"] = rng.standard_normal((5, 3, 1, 1)).astype(np.float32)
    return build([*BRANCHES, *nodes], {"x": ["batch", 3, 6, 4]}, outputs, arrays)


def test_activate_before_concat_moves_norm_and_relu_and_keeps_outputs(build, evaluate, operators, rng):
    model = joined(build, rng, [NORM, make_node("Relu", ["n"], ["r"]), make_node("Neg", ["r"], ["y"])])
    moved, rewrites = run_passes(model, [activate_before_concat])
    x = rng.standard_normal((2, 3, 6, 4)).astype(np.float32)
    assert rewrites["activate_before_concat"] == 2
    assert operators(moved)[-2:] == ["Concat", "Neg"]
    assert sorted(operators(moved)).count("BatchNormalization") == operators(moved).count("Relu") == 2
    np.testing.assert_array_equal(evaluate(moved, {"x": x})[0], evaluate(model, {"x": x})[0])
    assert activate_before_concat(moved) == 0


def test_moved_norms_fold_into_the_branches(build, evaluate, operators, rng):
    model = joined(build, rng, [NORM, make_node("Relu", ["n"], ["y"])])
    folded, rewrites = run_passes(model, [activate_before_concat, fold_batch_norm])
    x = rng.standard_normal((2, 3, 6, 4)).astype(np.float32)
    assert rewrites["fold_batch_norm"] == 2
    assert operators(folded) == ["Conv", "Conv", "Relu", "Relu", "Concat"]
    assert folded.graph.outputs[0].name == "y"
    # Sums of 27 products of standard normals, in another order.
    np.testing.assert_allclose(evaluate(folded, {"x": x})[0], evaluate(model, {"x": x})[0], rtol=1e-4, atol=1e-4)


def test_moved_nodes_know_their_module(build, rng):
    model = joined(build, rng, [NORM, make_node("Neg", ["n"], ["y"])])
    next(node for node in model.graph if node.name == "norm").metadata_props[MODULE] = "stages.0.bn3"
    moved, _ = run_passes(model, [activate_before_concat])
    norms = [node for node in moved.graph if node.op_type == "BatchNormalization"]
    assert [node.metadata_props[MODULE] for node in norms] == ["stages.0.bn3"] * 2
    assert len({node.name for node in norms}) == 2


def test_activate_before_concat_declines_a_concat_with_another_reader(build, rng):
    nodes = [make_node("Relu", ["c"], ["y"]), make_node("Neg", ["c"], ["z"])]
    assert activate_before_concat(joined(build, rng, nodes, ("y", "z"))) == 0


def test_activate_before_concat_declines_a_branch_with_another_reader(build, rng):
    nodes = [make_node("Relu", ["c"], ["y"]), make_node("Neg", ["a"], ["z"])]
    assert activate_before_concat(joined(build, rng, nodes, ("y", "z"))) == 0


def test_activate_before_concat_declines_branches_without_convolution(build):
    nodes = [
        make_node("Neg", ["x"], ["a"]),
        make_node("Abs", ["x"], ["b"]),
        make_node("Concat", ["a", "b"], ["c"], axis=1),
        make_node("Relu", ["c"], ["y"]),
    ]
    assert activate_before_concat(build(nodes, {"x": [2, 3, 6, 4]}, ["y"])) == 0


def test_activate_before_concat_declines_other_axes(build, rng):
    nodes = [
        make_node("Conv", ["x", "w"], ["a"]),
        make_node("Conv", ["x", "w"], ["b"]),
        make_node("Concat", ["a", "b"], ["c"], axis=2),
        make_node("Relu", ["c"], ["y"]),
    ]
    weight = rng.standard_normal((2, 3, 1, 1)).astype(np.float32)
    assert activate_before_concat(build(nodes, {"x": [2, 3, 6, 4]}, ["y"], {"w": weight})) == 0
