from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.errors import EngineMismatchError
from ran_deploy.runtime.backends.ort import open_reference


def quantized_graph():
    """Q/DQ -> convolution -> ReLU, with every tensor an output, as a calibration graph has them."""
    rng = np.random.default_rng(4)
    constants = {
        "scale": np.float32(0.05),
        "zero": np.int8(0),
        "weight": rng.integers(-127, 128, (5, 3, 3, 2)).astype(np.int8),
        "weight_scale": rng.uniform(0.001, 0.01, 5).astype(np.float32),
        "weight_zero": np.zeros(5, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["dq", "w"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["logits"]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("logits", "conv", "dq")]
    outputs.append(helper.make_tensor_value_info("q", TensorProto.INT8, None))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 11])],
        outputs,
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def test_the_reference_evaluates_every_tensor_of_a_quantized_graph_as_written():
    image = np.random.default_rng(5).normal(0, 2, (3, 3, 8, 11)).astype(np.float32)
    model = quantized_graph()
    expected = ReferenceEvaluator(model).run(None, {"image": image})
    found = open_reference(model.SerializeToString(), threads=1).infer({"image": image})
    assert list(found) == ["logits", "conv", "dq", "q"]
    np.testing.assert_array_equal(found["q"], expected[3])
    np.testing.assert_array_equal(found["dq"], expected[2])
    for name, values in zip(("logits", "conv"), expected[:2], strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-4)  # FP32 sums of 18 products up to 8


def test_the_reference_knows_its_types_and_shapes():
    runner = open_reference(quantized_graph().SerializeToString())
    assert runner.inputs[0].shape == (None, 3, 8, 11)
    assert {spec.name: spec.dtype for spec in runner.outputs} == {
        "logits": "float32",
        "conv": "float32",
        "dq": "float32",
        "q": "int8",
    }


def test_what_is_no_graph_is_refused_in_one_line():
    with pytest.raises(EngineMismatchError, match=r"ONNX Runtime .* cannot load this engine") as error:
        open_reference(b"hello")
    assert "\n" not in str(error.value)
