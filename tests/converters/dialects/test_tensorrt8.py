from __future__ import annotations

import numpy as np
import onnx
import pytest

from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError
from ran_deploy.precision import Precision


@pytest.fixture(scope="module", params=list(Precision), ids=lambda precision: precision.value)
def lowered(request, float_graph, artifact):
    """The graph it came from, and the graph for TensorRT 8."""
    source = artifact if request.param is Precision.INT8 else float_graph
    return source, lower(source, "tensorrt8", request.param)


def test_the_graph_is_opset_17_of_types_that_tensorrt_8_reads(lowered):
    proto = onnx.ModelProto.FromString(model_bytes(lowered[1]))
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.opset_import[0].version, proto.ir_version) == (17, 8)
    types = {tensor.data_type for tensor in proto.graph.initializer}
    assert types <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8, onnx.TensorProto.INT64}


def test_a_uint8_image_meets_a_cast_first_which_is_all_that_tensorrt_takes(lowered):
    image = lowered[1].graph.inputs[0]
    assert [node.op_type for node in image.consumers()] == ["Cast"]


def test_it_computes_what_the_graph_it_came_from_computes(lowered, images):
    before, after = (run_unoptimised(model, {"image": images})[0] for model in lowered)
    np.testing.assert_array_equal(after, before)


def test_weights_are_quantised_in_the_graph_to_the_very_same_int8(artifact):
    graph = lower(artifact, "tensorrt8", Precision.INT8).graph
    stored = {node.outputs[0].name: node for node in artifact.graph if node.op_type == "DequantizeLinear"}
    seen = 0
    for node in graph:
        weights = node.inputs[0].const_value if node.op_type == "QuantizeLinear" else None
        if weights is None:
            continue
        (dequantize,) = node.outputs[0].consumers()
        scale, axis = node.inputs[1].const_value.numpy(), node.attributes.get_int("axis", 1)
        by_axis = scale.reshape([-1 if i == axis else 1 for i in range(len(weights.shape))])
        quantized = np.clip(np.rint(weights.numpy() / by_axis), -128, 127).astype(np.int8)
        original = stored[dequantize.outputs[0].name].inputs[0].const_value.numpy()
        np.testing.assert_array_equal(quantized, original)
        seen += 1
    assert seen == sum(node.op_type in ("Conv", "Gemm") for node in graph)


def test_nvidias_parser_takes_the_graph(lowered):
    trt = pytest.importorskip("tensorrt_rtx")
    network = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_network(0)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(model_bytes(lowered[1])), [str(parser.get_error(i)) for i in range(parser.num_errors)]


def test_graphs_of_other_dialects_are_refused(artifact):
    other = lower(artifact, "openvino", Precision.INT8)
    with pytest.raises(ConversionError, match="TensorRT computes with int8 alone"):
        lower(other, "tensorrt8", Precision.INT8)
