from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.errors import BuildError
from ran_deploy.precision import Precision

OPTIONS = BuildOptions(precision=Precision.INT8)


def images(batch=3):
    return np.random.default_rng(5).integers(0, 256, (batch, 3, 13, 10)).astype(np.float32)


def float_graph():
    """Convolutions of 16 and 32 channels, which ONNX Runtime moves to its blocked layout, and a residual."""
    rng = np.random.default_rng(1)
    constants = {
        "w1": rng.normal(0, 0.01, (16, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.1, (32, 16, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["sum"]),
        helper.make_node("MaxPool", ["sum"], ["pool"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Conv", ["pool", "w3"], ["logits"]),
    ]
    return model_of(nodes, constants)


def int8_graph(activation=np.uint8, half=False):
    """Conv -> ReLU -> Conv, Q/DQ around all of it as in the ONNX Runtime dialect, or FP16 with FP16 scales."""
    rng = np.random.default_rng(2)
    float_type = np.float16 if half else np.float32
    zero = activation(128 if activation is np.uint8 else 0)
    constants: dict[str, np.ndarray] = {"zero": zero}
    nodes = []
    tensor = "image"
    if half:
        nodes.append(helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16))
        tensor = "half"

    def quantized(name: str, size: float) -> str:
        constants[f"{name}_s"] = float_type(size)
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_s", "zero"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", "zero"], [f"{name}_dq"]))
        return f"{name}_dq"

    for index, (channels_in, channels_out) in enumerate([(3, 7), (7, 11)]):
        weight = f"w{index}"
        constants[weight] = rng.integers(-127, 128, (channels_out, channels_in, 3, 3)).astype(np.int8)
        constants[f"{weight}_s"] = np.full(channels_out, 0.01, float_type)
        constants[f"{weight}_z"] = np.zeros(channels_out, np.int8)
        constants[f"b{index}"] = rng.normal(0, 10, channels_out).astype(float_type)
        nodes.append(
            helper.make_node("DequantizeLinear", [weight, f"{weight}_s", f"{weight}_z"], [f"{weight}_dq"], axis=0)
        )
        source = quantized(tensor, 1.0)
        nodes.append(helper.make_node("Conv", [source, f"{weight}_dq", f"b{index}"], [f"c{index}"]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
        tensor = f"r{index}"
    if half:
        nodes.append(helper.make_node("Cast", [tensor], ["logits"], to=TensorProto.FLOAT))
    else:
        nodes.append(helper.make_node("Identity", [quantized(tensor, 1.0)], ["logits"]))
    return model_of(nodes, constants)


def model_of(nodes, constants):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 13, 10])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(graph: bytes, level, image, disabled=()):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(graph, options, ["CPUExecutionProvider"], disabled_optimizers=list(disabled))
    return session.run(["logits"], {"image": image})[0]


GRAPHS = {
    "float": float_graph,
    "u8": int8_graph,
    "s8": lambda: int8_graph(np.int8),
    "s8 in FP16": lambda: int8_graph(np.int8, half=True),
}
LEVELS = ort.GraphOptimizationLevel


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("level", [LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC])
def test_an_engine_gives_what_optimising_at_load_gives(name, level):
    graph = GRAPHS[name]().SerializeToString()
    at_load = run(graph, LEVELS.ORT_ENABLE_ALL, images(), ["WeightBiasQuantization"])
    engine = open_builder("onnxruntime").build(graph, OPTIONS)
    np.testing.assert_array_equal(run(engine, level, images()), at_load)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_engine_is_an_optimised_graph(name):
    graph = GRAPHS[name]()
    engine = open_builder("onnxruntime").build(graph.SerializeToString(), OPTIONS)
    assert b"com.microsoft" in engine  # fused operators, which no exporter writes
    assert b"com.microsoft" not in graph.SerializeToString()


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", ["float", "u8"])
def test_an_engine_agrees_with_the_reference_evaluator(name, batch):
    model = GRAPHS[name]()
    expected = ReferenceEvaluator(model).run(None, {"image": images(batch)})[0]
    engine = open_builder("onnxruntime").build(model.SerializeToString(), OPTIONS)
    found = run(engine, LEVELS.ORT_DISABLE_ALL, images(batch))
    step = 0.0 if name == "float" else 1.0  # one step of the output's scale: requantisation may round the other way
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 + step)


@pytest.mark.parametrize(
    "graph", [b"", b"hello", float_graph().SerializeToString()[:200]], ids=["empty", "text", "cut"]
)
def test_what_is_no_graph_is_refused_in_one_line(graph):
    with pytest.raises(BuildError, match=r"ONNX Runtime .* refuses the graph: ") as error:
        open_builder("onnxruntime").build(graph, OPTIONS)
    assert "\n" not in str(error.value)


def test_an_unknown_operator_is_named():
    model = model_of([helper.make_node("Mystery", ["image"], ["logits"], name="stage2.mask")], {})
    with pytest.raises(BuildError, match="Mystery"):
        open_builder("onnxruntime").build(model.SerializeToString(), OPTIONS)
