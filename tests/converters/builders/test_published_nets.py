"""The demo network, Attention-56 and Attention-92 at their published sizes: TensorRT-RTX's real parser and builder.

Weights are random. How many layers of which type there are does not depend on them, nor does whether the builder
finds kernels; what the engines compute, only a GPU can tell.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from ran_deploy.converters.builders import BuildOptions, open_builder, trt
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.quantize import find_calibrated_tensors, insert_qdq
from ran_deploy.errors import BackendUnavailableError
from ran_deploy.manifest import BatchProfile
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing

NAMES = ("compact-attention", "attention-56", "attention-92")
BATCH = BatchProfile(minimum=1, optimum=8, maximum=32)


@dataclass(frozen=True)
class Net:
    """A network lowered to TensorRT's dialect in each precision, and what PyTorch says it consists of."""

    graphs: dict[Precision, bytes]
    old: dict[Precision, bytes]  # the same for TensorRT 8
    convolutions: int
    size: tuple[int, int]


@pytest.fixture(scope="module")
def builder():
    try:
        return open_builder("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module", params=NAMES)
def net(request) -> Net:
    architecture = ARCHITECTURES[request.param]
    size = architecture.input_size
    torch.manual_seed(0)
    module = build_network(architecture.design, architecture.num_classes).eval()
    graph, _ = run_passes(onnx_from_module(module, size))
    add_uint8_prologue(graph, Preprocessing(crop=size, mean=(0.5,) * 3, std=(0.25,) * 3))
    convolutions = sum(isinstance(part, nn.Conv2d) for part in module.modules())
    new, old = (
        {precision: lowered(graph, precision, dialect) for precision in Precision}
        for dialect in ("tensorrt", "tensorrt8")
    )
    return Net(new, old, convolutions, size)


def lowered(graph: ir.Model, precision: Precision, dialect: str) -> bytes:
    graph = graph.clone()
    if precision is Precision.INT8:
        insert_qdq(graph, dict.fromkeys(find_calibrated_tensors(graph), 4.0))
    return model_bytes(lower(graph, dialect, precision))


def parsed(builder, graph: bytes):
    network = builder._builder.create_network(trt._network_flags(builder._trt))
    builder._parse(network, graph)
    return network


@pytest.mark.parametrize("precision", Precision)
def test_an_engine_is_built_without_a_gpu(builder, net, precision):
    engine = builder.build(net.graphs[precision], BuildOptions(precision=precision, batch=BATCH))
    assert len(engine) > 10_000


@pytest.mark.parametrize("precision", Precision)
def test_the_network_is_typed_as_its_precision_says(builder, net, precision):
    types, kinds = builder._trt.DataType, builder._trt.LayerType
    network = parsed(builder, net.graphs[precision])
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    found = Counter((layer.type, layer.get_output(0).dtype) for layer in layers)
    real = types.FLOAT if precision is Precision.FP32 else types.HALF
    assert found[kinds.CONVOLUTION, real] == net.convolutions
    assert found[kinds.MATRIX_MULTIPLY, real] == 1
    for kind in (kinds.CONVOLUTION, kinds.MATRIX_MULTIPLY, kinds.RESIZE, kinds.POOLING, kinds.SCALE, kinds.ACTIVATION):
        assert {dtype for layer, dtype in found if layer == kind} == {real}, kind
    quantizers = {dtype for layer, dtype in found if layer in (kinds.QUANTIZE, kinds.DEQUANTIZE)}
    assert quantizers == ({types.INT8, types.HALF} if precision is Precision.INT8 else set())


def test_every_product_of_an_int8_network_reads_int8(builder, net):
    kinds = builder._trt.LayerType
    network = parsed(builder, net.graphs[Precision.INT8])
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    products = [layer for layer in layers if layer.type in (kinds.CONVOLUTION, kinds.MATRIX_MULTIPLY)]
    assert len(products) == net.convolutions + 1
    for layer in products:
        sources = [producers[layer.get_input(index).name].type for index in (0, 1)]
        assert sources == [kinds.DEQUANTIZE] * 2, layer.name


@pytest.mark.parametrize("precision", Precision)
def test_weights_are_known_by_their_names_in_the_graph_but_for_those_of_qdq(builder, net, precision):
    # What an engine without weights is refitted by. TensorRT's refitter knows the graph's names, and the sums it
    # makes of a BatchNormalization; names of this other kind are the parser's alone.
    network = parsed(builder, net.graphs[precision])
    graph = onnx.ModelProto.FromString(net.graphs[precision]).graph
    initializers = {each.name for each in graph.initializer}
    products = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(products) == net.convolutions + 1
    if precision is not Precision.INT8:
        assert all(name in initializers and network.mark_weights_refittable(name) for name in products)
    own = ["tmp_weight", *(f"tmp_weight_{index}" for index in range(len(graph.node)))]
    assert any(map(network.mark_weights_refittable, own)) == (precision is Precision.INT8)


def test_images_are_bytes_and_the_batch_is_a_profile(builder, net):
    network = parsed(builder, net.graphs[Precision.INT8])
    image = network.get_input(0)
    assert (image.dtype, tuple(image.shape)) == (builder._trt.DataType.UINT8, (-1, *net.size, 3))
    profile = builder._profile(network, BATCH)
    assert [tuple(shape) for shape in profile.get_shape("image")] == [(batch, *net.size, 3) for batch in (1, 8, 32)]


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_the_graph_for_tensorrt_8_is_opset_17_and_parsed(builder, net, precision):
    proto = onnx.ModelProto.FromString(net.old[precision])
    onnx.checker.check_model(proto, full_check=True)
    assert proto.opset_import[0].version == 17
    network = parsed(builder, net.old[precision])
    kinds = Counter(network.get_layer(index).type for index in range(network.num_layers))
    assert kinds[builder._trt.LayerType.CONVOLUTION] == net.convolutions
