from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.dialects import lower
from ran_deploy.converters.dialects.tensorrt import refuse_unsigned
from ran_deploy.converters.graph import model_bytes
from ran_deploy.errors import ConversionError
from ran_deploy.precision import Precision

LARGEST_BATCH = 4


def built_bytes(data: bytes) -> int:
    """Return the size of the engine NVIDIA's real builder makes, strongly typed; no GPU is needed."""
    trt = pytest.importorskip("tensorrt_rtx")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    assert parser.parse(data), [str(parser.get_error(i)) for i in range(parser.num_errors)]
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    image = network.get_input(0)
    sample = tuple(image.shape)[1:]
    profile.set_shape(image.name, (1, *sample), (2, *sample), (LARGEST_BATCH, *sample))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return int(engine.nbytes)


@pytest.mark.parametrize("precision", list(Precision))
def test_nvidias_builder_takes_the_graph_of_every_precision(float_graph, artifact, precision):
    model = artifact if precision is Precision.INT8 else float_graph
    assert built_bytes(model_bytes(lower(model, "tensorrt", precision))) > 100_000


def test_the_artifact_is_signed(artifact):
    refuse_unsigned(artifact)


@pytest.mark.parametrize("dialect", ["openvino", "onnxruntime"])
def test_graphs_of_other_dialects_are_refused(artifact, dialect):
    other = lower(artifact, dialect, Precision.INT8)
    with pytest.raises(ConversionError, match="TensorRT computes with int8 alone"):
        lower(other, "tensorrt", Precision.INT8)


def test_quantisation_without_zero_point_is_refused_as_it_means_uint8(build):
    nodes = [make_node("QuantizeLinear", ["x", "s"], ["q"]), make_node("DequantizeLinear", ["q", "s"], ["y"])]
    with pytest.raises(ConversionError, match="QuantizeLinear of 'q' uses"):
        refuse_unsigned(build(nodes, {"x": [2, 3]}, ["y"], {"s": np.float32(0.1)}))


def test_int8_weights_without_zero_point_are_taken(build):
    nodes = [make_node("DequantizeLinear", ["q", "s"], ["w"]), make_node("Add", ["x", "w"], ["y"])]
    refuse_unsigned(build(nodes, {"x": [2, 3]}, ["y"], {"q": np.ones(3, np.int8), "s": np.float32(0.1)}))
