"""Graphs for the converter tests: tiny ones from ONNX nodes, and one whole small RAN, exported once."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.prologue import add_uint8_prologue
from ran_deploy.converters.quantize import find_calibrated_tensors, insert_qdq, with_outputs
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.models.design import Design, Pooling, Stage, Stem
from ran_deploy.models.network import build_network
from ran_deploy.preprocessing import Preprocessing

SIZE = (46, 34)  # H != W; levels 46 -> 23 -> 11 and 34 -> 17 -> 8 in the masks
MEAN, STD = (0.2, 0.3, 0.4), (0.3, 0.25, 0.35)

Build = Callable[..., ir.Model]
Run = Callable[[ir.Model, Mapping[str, np.ndarray]], list[np.ndarray]]


def fill(module: nn.Module) -> nn.Module:
    """Give every tensor reproducible contents of a sane size: deep random nets explode otherwise."""
    for name, tensor in module.state_dict().items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if name.endswith("running_var"):
            noise = np.exp(0.2 * noise)
        elif tensor.ndim > 1:
            noise *= 0.8 / math.sqrt(math.prod(tensor.shape[1:]))
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        tensor.copy_(torch.from_numpy(np.asarray(noise)))
    return module.eval()


@pytest.fixture(scope="session")
def ran() -> nn.Module:
    """A small RAN with every kind of part: a mask with a skip, a strided unit, bottlenecks of odd width."""
    stages = (Stage(width=20, stride=1, modules=1, mask_depth=2), Stage(width=28, stride=2, modules=0))
    design = Design(stem=Stem.CONV5_STRIDE2, stem_width=12, stages=stages, pooling=Pooling.CEIL)
    return fill(build_network(design, 5))


@pytest.fixture(scope="session")
def exported(ran: nn.Module) -> ir.Model:
    """`ran` as the exporter leaves it, at `SIZE`."""
    return onnx_from_module(ran, SIZE)


@pytest.fixture(scope="session")
def clean(exported: ir.Model) -> ir.Model:
    """`exported` after all passes: normalised float32 images in."""
    return run_passes(exported)[0]


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Seven images, uint8 (7, H, W, 3), of uneven brightness."""
    rng = np.random.default_rng(7)
    return rng.integers(0, rng.integers(90, 256, (7, 1, 1, 3)), (7, *SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def float_graph(clean: ir.Model) -> ir.Model:
    """`clean` with the uint8 prologue: what is calibrated."""
    model = clean.clone()
    add_uint8_prologue(model, Preprocessing(crop=SIZE, mean=MEAN, std=STD))
    return model


@pytest.fixture(scope="session")
def ranges(float_graph: ir.Model, images: np.ndarray) -> dict[str, float]:
    """Max |x| of every tensor a dialect may need, over `images`."""
    names = find_calibrated_tensors(float_graph)
    model = with_outputs(float_graph, names)
    arrays = run_unoptimised(model, {"image": images})
    outputs = [value.name for value in model.graph.outputs]
    return {name: float(np.abs(array).max()) for name, array in zip(outputs, arrays, strict=True) if name in names}


@pytest.fixture(scope="session")
def artifact(float_graph: ir.Model, ranges: dict[str, float]) -> ir.Model:
    """The s8 graph with its float rest in float32."""
    model = float_graph.clone()
    insert_qdq(model, ranges)
    return model


@pytest.fixture(scope="session")
def build() -> Build:
    """Return a function from ONNX nodes to a model: shapes by name, float32 unless an array says otherwise."""

    def build_model(
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Sequence[str],
        constants: Mapping[str, np.ndarray] | None = None,
        opset: int = 18,
    ) -> ir.Model:
        graph = onnx.helper.make_graph(
            list(nodes),
            "test",
            [onnx.helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, list(v)) for k, v in inputs.items()],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
            [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
        return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True))

    return build_model


@pytest.fixture(scope="session")
def evaluate() -> Run:
    """Return a function that runs a small model in ONNX's own reference evaluator."""

    def run(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        proto = onnx.ModelProto.FromString(model_bytes(model))
        proto.opset_import[0].version = max(19, proto.opset_import[0].version)  # it has no Q/DQ of opset 18
        return ReferenceEvaluator(proto).run(None, dict(feeds))

    return run


@pytest.fixture(scope="session")
def operators() -> Callable[[ir.Model], list[str]]:
    """Return a function that lists a model's operators in order."""
    return lambda model: [node.op_type for node in model.graph]
