from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.converters.opset17 import REWRITES, lower_to_opset17
from ran_deploy.errors import ConversionError

AXES = {"axes": np.array([1], np.int64)}


def test_only_what_opset_18_changed_is_rewritten():
    changed = {s.name for s in onnx.defs.get_all_schemas_with_history() if s.since_version == 18 and s.domain == ""}
    assert set(REWRITES) <= changed


@pytest.mark.parametrize("reduction", sorted(name for name in REWRITES if name.startswith("Reduce")))
@pytest.mark.parametrize("keepdims", [0, 1])
def test_axes_of_a_reduction_become_an_attribute(build, evaluate, rng, reduction, keepdims):
    node = make_node(reduction, ["x", "axes"], ["y"], keepdims=keepdims)
    model = build([node], {"x": [2, 5, 3]}, ["y"], AXES)
    x = rng.random((2, 5, 3)).astype(np.float32)
    before = evaluate(model, {"x": x})[0]
    lower_to_opset17(model)
    check(model)
    proto = onnx.ModelProto.FromString(model_bytes(model))
    assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    assert list(proto.graph.node[0].input) == ["x"]
    np.testing.assert_array_equal(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0], before)


def test_a_resize_loses_what_says_nothing(build):
    node = make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=0, keep_aspect_ratio_policy="stretch")
    model = build([node], {"x": [2, 3, 4, 5]}, ["y"], {"s": np.array([1, 1, 2, 2], np.float32)})
    lower_to_opset17(model)
    check(model)
    assert set(model.graph.node(0).attributes) == {"mode"}


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1), {"s": np.ones(4, np.float32)}),
        (make_node("ReduceMean", ["x"], ["y"]), {}),
        (make_node("Split", ["x"], ["y", "z"], axis=3, num_outputs=2), {}),
        (
            make_node("Pad", ["x", "p", "", "a"], ["y"]),
            {"p": np.ones(2, np.int64), "a": np.array([3], np.int64)},
        ),
        (make_node("Mish", ["x"], ["y"]), {}),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else "",
)
def test_what_opset_17_cannot_say_is_refused(build, node, constants):
    model = build([node], {"x": [2, 3, 4, 5]}, ["y"], constants)
    with pytest.raises(ConversionError, match=rf"^{node.op_type} of 'y' cannot be written in opset 17"):
        lower_to_opset17(model)


def test_equal_parts_and_paddings_of_all_axes_stay(build, evaluate, rng):
    nodes = [
        make_node("Pad", ["x", "p"], ["padded"]),
        make_node("Split", ["padded"], ["a", "b"], axis=1, num_outputs=2),
        make_node("Add", ["a", "b"], ["y"]),
    ]
    model = build(nodes, {"x": [2, 3]}, ["y"], {"p": np.array([0, 1, 0, 2], np.int64)})
    x = rng.random((2, 3)).astype(np.float32)
    before = evaluate(model, {"x": x})[0]
    lower_to_opset17(model)
    check(model)
    proto = onnx.ModelProto.FromString(model_bytes(model))
    np.testing.assert_array_equal(onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0], before)
