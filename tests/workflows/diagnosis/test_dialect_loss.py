from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE
from ran_deploy.precision import Precision
from ran_deploy.workflows.diagnosis.cuts import ExactGraph
from ran_deploy.workflows.diagnosis.dialect_loss import region_losses

X = np.arange(1, 13, dtype=np.float32).reshape(3, 4)


def exact(factor: float, offset: float, renamed: str = "a") -> ExactGraph:
    """logits = (factor * x in region u) + offset in region v; |a| in region w leads to another output."""
    nodes = [
        make_node("Mul", ["image", "factor"], [renamed]),
        make_node("Add", [renamed, "offset"], ["logits"]),
        make_node("Abs", [renamed], ["attention/one"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 4])],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in ("logits", "attention/one")
        ],
        [
            onnx.numpy_helper.from_array(np.float32([value]), name)
            for name, value in {"factor": factor, "offset": offset}.items()
        ],
    )
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    for node, module in zip(model.graph, "uvw", strict=True):
        node.metadata_props[MODULE] = module
    return ExactGraph(model, "onnxruntime", Precision.FP32, X)


def norm_ratio(error, of):
    return np.linalg.norm(error) / np.linalg.norm(of)


def test_each_region_answers_for_what_it_adds():
    u, v, w = region_losses(exact(2.2, 5), exact(2, 3))
    assert (u.region, v.region, w.region) == ("u", "v", "w")
    assert u.cumulative == u.alone == pytest.approx(0.1, rel=1e-5)
    assert u.at_output == pytest.approx(norm_ratio(0.2 * X, 2 * X + 3), rel=1e-5)
    assert v.cumulative == pytest.approx(norm_ratio(0.2 * X + 2, 2 * X + 3), rel=1e-5)
    assert v.alone == v.at_output == pytest.approx(norm_ratio(2 + 0 * X, 2 * X + 3), rel=1e-5)
    assert u.sqnr_db == pytest.approx(20, rel=1e-4)


def test_what_does_not_lead_to_the_outputs_moves_nothing():
    *_, w = region_losses(exact(2.2, 5), exact(2, 3))
    assert (w.outputs, w.alone, w.at_output) == (("attention/one",), 0, 0)
    assert w.cumulative == pytest.approx(0.1, rel=1e-5)


def test_equal_graphs_lose_nothing():
    for loss in region_losses(exact(2, 3), exact(2, 3)):
        assert (loss.cumulative, loss.alone, loss.at_output, loss.sqnr_db) == (0, 0, 0, None)


def test_a_region_without_its_namesake_is_left_out():
    assert region_losses(exact(2, 3, renamed="b"), exact(2, 3)) == ()


def test_progress_is_told():
    told = []
    region_losses(exact(2, 3), exact(2, 3), told.append)
    assert told == [1, 2, 3]
