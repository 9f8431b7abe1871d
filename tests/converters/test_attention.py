from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.helper import make_node
from torch import nn

from ran_deploy.converters.attention import add_attention_outputs, find_gates, readable_names
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import MODULE, check
from ran_deploy.converters.quantize import insert_qdq
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError
from ran_deploy.manifest import AttentionRecord
from ran_deploy.models.network import recorded_masks
from ran_deploy.precision import Precision

INPUTS = {"x": ["batch", 3, 6, 4], "t": ["batch", 3, 6, 4], "one_map": ["batch", 1, 6, 4], "small": ["batch", 3, 3, 4]}
CONSTANTS = {
    "one": np.float32(1),
    "two": np.float32(2),
    "ones": np.ones((1, 3, 1, 1), np.float32),
    "eps": np.float32(1e-12),
    "channels": np.array([1]),
    "rows": np.array([2]),
}
SIGMOID = make_node("Sigmoid", ["x"], ["m"])
NORM = [make_node("ReduceL2", ["x", "channels"], ["n"]), make_node("Clip", ["n", "eps"], ["c"])]
GATES = {
    "residual": [SIGMOID, make_node("Add", ["m", "one"], ["g"]), make_node("Mul", ["g", "t"], ["y"])],
    "residual, the other way round": [
        SIGMOID,
        make_node("Add", ["one", "m"], ["g"]),
        make_node("Mul", ["t", "g"], ["y"]),
    ],
    "residual, with a one for each channel": [
        SIGMOID,
        make_node("Add", ["m", "ones"], ["g"]),
        make_node("Mul", ["g", "t"], ["y"]),
    ],
    "naive": [SIGMOID, make_node("Mul", ["m", "t"], ["y"])],
    "one map for all channels": [make_node("Sigmoid", ["one_map"], ["m"]), make_node("Mul", ["t", "m"], ["y"])],
    "unit vectors": [
        *NORM,
        make_node("Div", ["x", "c"], ["m"]),
        make_node("Add", ["m", "one"], ["g"]),
        make_node("Mul", ["g", "t"], ["y"]),
    ],
}
NO_GATES = {
    "an activation": [SIGMOID, make_node("Mul", ["x", "m"], ["y"])],
    "a factor for each channel": [
        make_node("GlobalAveragePool", ["x"], ["p"]),
        make_node("Sigmoid", ["p"], ["m"]),
        make_node("Mul", ["m", "t"], ["y"]),
    ],
    "2 + M": [SIGMOID, make_node("Add", ["m", "two"], ["g"]), make_node("Mul", ["g", "t"], ["y"])],
    "a constant factor": [SIGMOID, make_node("Mul", ["m", "ones"], ["y"])],
    "a sum": [SIGMOID, make_node("Add", ["m", "t"], ["y"])],
    "no bound": [make_node("Relu", ["x"], ["m"]), make_node("Mul", ["m", "t"], ["y"])],
    "a broadcast row": [
        make_node("ReduceMean", ["x", "rows"], ["p"]),
        make_node("Sigmoid", ["p"], ["m"]),
        make_node("Mul", ["m", "t"], ["y"]),
    ],
    "a norm over rows": [
        make_node("ReduceL2", ["x", "rows"], ["n"]),
        make_node("Div", ["x", "n"], ["m"]),
        make_node("Mul", ["m", "t"], ["y"]),
    ],
    "the norm of something else": [
        make_node("ReduceL2", ["t", "channels"], ["n"]),
        make_node("Div", ["x", "n"], ["m"]),
        make_node("Mul", ["m", "t"], ["y"]),
    ],
}


@pytest.mark.parametrize("nodes", GATES.values(), ids=GATES)
def test_masks_that_weigh_a_trunk_are_found(build, nodes):
    assert [gate.mask.name for gate in find_gates(build(nodes, INPUTS, ["y"], CONSTANTS).graph)] == ["m"]


@pytest.mark.parametrize("nodes", NO_GATES.values(), ids=NO_GATES)
def test_other_products_are_no_gates(build, nodes):
    assert find_gates(build(nodes, INPUTS, ["y"], CONSTANTS).graph) == []


def test_a_mask_used_twice_is_put_out_once_and_named_after_its_first_use(build):
    nodes = [
        SIGMOID,
        make_node("Mul", ["m", "t"], ["y"], name="first"),
        make_node("Mul", ["m", "y"], ["z"], name="2nd"),
    ]
    model = build(nodes, INPUTS, ["z"], CONSTANTS)
    model.graph.node("first").metadata_props[MODULE] = "net.gate"
    assert add_attention_outputs(model) == (AttentionRecord(name="net.gate", module="net.gate", height=6, width=4),)
    check(model)
    assert [value.name for value in model.graph.outputs] == ["z", "attention/net.gate"]


def test_outputs_are_means_over_channels(build, evaluate, rng):
    model = build(GATES["residual"], INPUTS, ["y"], CONSTANTS)
    add_attention_outputs(model)
    feeds = {name: rng.standard_normal([2, *shape[1:]]).astype(np.float32) for name, shape in INPUTS.items()}
    y, mean = evaluate(model, feeds)
    mask = 1 / (1 + np.exp(-feeds["x"].astype(np.float64)))
    np.testing.assert_allclose(mean, mask.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(y, (1 + mask) * feeds["t"], rtol=1e-5)


def test_a_network_without_masks_is_refused(build):
    model = build(NO_GATES["a factor for each channel"], INPUTS, ["y"], CONSTANTS)
    with pytest.raises(ConversionError, match=r"no soft mask.*Leave --with-attention out"):
        add_attention_outputs(model)
    assert [value.name for value in model.graph.outputs] == ["y"]


@pytest.fixture(scope="module")
def attentive(float_graph: ir.Model) -> ir.Model:
    model = float_graph.clone()
    add_attention_outputs(model)
    return model


def test_masks_of_a_network_are_those_of_pytorch(ran: nn.Module, clean: ir.Model, rng):
    model = clean.clone()
    (record,) = add_attention_outputs(model)
    images = rng.standard_normal((3, 3, 46, 34)).astype(np.float32)
    with recorded_masks(ran) as masks, torch.no_grad():
        logits = ran(torch.from_numpy(images)).numpy()
    found, mean = run_unoptimised(model, {"image": images})
    assert (record.name, record.module) == ("stage1.module1", "stages.0.1")
    assert mean.shape == (3, record.height, record.width)
    np.testing.assert_allclose(mean, masks["stages.0.1.mask"].mean(1), rtol=1e-4)
    np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", Precision)
def test_no_dialect_changes_its_logits_by_putting_out_masks(float_graph, attentive, ranges, images, precision, dialect):
    plain, attentive = float_graph.clone(), attentive.clone()
    if precision is Precision.INT8:
        insert_qdq(plain, ranges)
        insert_qdq(attentive, ranges)
    lowered = lower(attentive, dialect, precision)
    expected, (logits, mean) = (
        run_unoptimised(model, {"image": images}) for model in (lower(plain, dialect, precision), lowered)
    )
    np.testing.assert_array_equal(logits, expected[0])
    assert lowered.graph.outputs[1].dtype == ir.DataType.FLOAT
    exact = run_unoptimised(attentive, {"image": images})[1]
    np.testing.assert_allclose(mean, exact, atol=0.02)


def test_names_number_modules_by_stage_and_are_all_different():
    assert readable_names(["stages.0.1", "stages.1.1", "stages.1.2", "stages.11.4"]) == [
        "stage1.module1",
        "stage2.module1",
        "stage2.module2",
        "stage12.module1",
    ]
    assert readable_names(["gate", "", "gate", "gate.2", "", "stages.0.1.inner"]) == [
        "gate",
        "attention",
        "gate.2",
        "gate.2.2",
        "attention.2",
        "stages.0.1.inner",
    ]
