from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.builders.ov import _precision_hint
from ran_deploy.engine.openvino import unpack_openvino_engine
from ran_deploy.errors import BuildError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner


def model_of(nodes, constants=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 13, 10])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def convolution():
    weight = np.random.default_rng(1).normal(0, 0.1, (7, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["conv"], strides=[2, 1]),
        helper.make_node("Relu", ["conv"], ["logits"]),
    ]
    return model_of(nodes, [("weight", weight)])


@pytest.mark.parametrize("precision", Precision)
def test_an_engine_agrees_with_the_reference_evaluator(precision):
    image = np.random.default_rng(2).normal(size=(5, 3, 13, 10)).astype(np.float32)
    expected = ReferenceEvaluator(convolution()).run(None, {"image": image})[0]
    engine = open_builder("openvino").build(convolution().SerializeToString(), BuildOptions(precision=precision))
    found = open_runner("openvino", engine, threads=1).infer({"image": image})["logits"]
    # BF16 keeps 8 bits: sums of 27 products, each within 2^-8 of values up to about 3.
    atol = 1e-5 if unpack_openvino_engine(engine)[1] == "f32" else 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("precision", "capabilities", "hint"),
    [
        (Precision.FP32, ["FP32", "BF16", "INT8"], "f32"),
        (Precision.FP16, ["FP32", "BF16", "INT8"], "bf16"),
        (Precision.INT8, ["FP32", "BF16", "INT8"], "bf16"),
        (Precision.INT8, ["FP32", "INT8"], "f32"),
    ],
)
def test_only_what_is_not_fp32_runs_in_bf16_and_only_where_the_cpu_can(precision, capabilities, hint):
    assert _precision_hint(precision, capabilities) == hint


def test_the_engine_keeps_the_hint_it_was_compiled_with():
    engine = open_builder("openvino").build(convolution().SerializeToString(), BuildOptions(precision=Precision.FP32))
    blob, hint = unpack_openvino_engine(engine)
    assert hint == "f32"
    assert engine.endswith(blob)


@pytest.mark.parametrize(
    "graph", [b"", b"hello", convolution().SerializeToString()[:300]], ids=["empty", "text", "cut"]
)
def test_what_is_no_graph_is_refused_in_one_line(graph):
    with pytest.raises(BuildError, match=r"OpenVINO .* refuses the graph: ") as error:
        open_builder("openvino").build(graph, BuildOptions(precision=Precision.FP32))
    assert "\n" not in str(error.value)


def test_an_unknown_operator_is_named_in_one_line():
    node = helper.make_node("Mystery", ["image"], ["logits"], name="stage2.mask", domain="com.example")
    with pytest.raises(BuildError, match="Mystery") as error:
        open_builder("openvino").build(model_of([node]).SerializeToString(), BuildOptions(precision=Precision.FP32))
    assert "\n" not in str(error.value)
