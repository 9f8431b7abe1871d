"""Every kind of network, small: really exported to INT8, run by both CPU engines, built by TensorRT-RTX.

Weights are random, with BatchNorm statistics of the net's own activations on real images: with others, ranges mean
nothing.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from attributed_products import assert_products_are_attributed
from torch import nn

from ran_deploy.bundle import Bundle
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import array_of, model_bytes, model_from_bytes
from ran_deploy.models import load_checkpoint, save_checkpoint
from ran_deploy.models.design import Attention, Design, Learning, MaskJoin, Pooling, Stage, Stem, Tail, Unit
from ran_deploy.models.layouts import LAYOUTS
from ran_deploy.models.network import build_network, recorded_masks
from ran_deploy.models.weiaicunzai import CifarDesign, CifarNetwork
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.profiles import Workload, profile_engine
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.engines.loading import find_engine, load_engine
from ran_deploy.workflows.evaluation.evaluators import REFERENCE_FILE
from ran_deploy.workflows.export import ExportConfig, export_bundle
from ran_deploy.workflows.exporting.engines import ExportedEngine
from ran_deploy.workflows.exporting.recipe import RecipeOptions

IMAGES = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "calibration.npz"
MEAN, STD = 0.286, 0.353
SMALL = Design(
    stem=Stem.CONV5_STRIDE2, stem_width=16, stages=(Stage(width=32, stride=1, modules=1, mask_depth=1),), t=1
)
DESIGNS = {
    "pre-activation": SMALL,
    "resnext": replace(
        SMALL,
        unit=Unit.RESNEXT,
        tail=Tail.POOL,
        stages=(Stage(width=64, stride=2, modules=1, mask_depth=1),),
    ),
    "inception": replace(SMALL, unit=Unit.INCEPTION),
    "channel attention": replace(SMALL, attention=Attention.CHANNEL),
    "spatial attention": replace(SMALL, attention=Attention.SPATIAL),
    "naive learning": replace(SMALL, learning=Learning.NAIVE),
    "flattened": replace(SMALL, join=MaskJoin.DENSE, pooling=Pooling.PADDED, tail=Tail.FLATTEN, last_map=(16, 16)),
}
NEAREST = CifarDesign(widths=(8, 32, 48), modules=(1,), depths=(2,), closing_units=1)
KINDS = [*DESIGNS, "nearest upsampling"]
# Relative L2 to PyTorch over 32 images. FP32: sums in another order. FP16: steps of 2**-11 through some 20 layers,
# measured at most 1.4e-3. INT8: measured 0.016 to 0.025, and other CPUs round otherwise.
LIMITS = {Precision.FP32: 1e-4, Precision.FP16: 5e-3, Precision.INT8: 0.05}
INT8_LIMITS = {
    "nearest upsampling": 0.1,  # 0.06: no sum reaches the end unrounded, as every shortcut is a convolution
    "flattened": 0.15,  # 0.09: no global average evens the rounding of 256 positions out
}


@dataclass(frozen=True)
class Exported:
    kind: str
    checkpoint: Path
    bundle: Bundle
    engines: dict[str, ExportedEngine]
    cache: Path


def settled(module: nn.Module) -> nn.Module:
    """Give BatchNorms the statistics of their own inputs on real images."""
    with np.load(IMAGES) as content:
        padded = np.pad(content["images"][:128], ((0, 0), (2, 2), (2, 2))) / 255
    images = torch.from_numpy((padded[:, None].repeat(3, 1) - MEAN) / STD).float()
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.momentum = None  # plain average
    module.train()
    with torch.no_grad():
        module(images)
    return module.eval()


def saved_checkpoint(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    path = folder / "net.safetensors"
    if kind in DESIGNS:
        save_checkpoint(path, settled(build_network(DESIGNS[kind], 10)), architecture=kind)
        return path
    reading = importlib.import_module(LAYOUTS["weiaicunzai"])._reading(NEAREST, 10)
    state = settled(CifarNetwork(NEAREST, 10)).state_dict()
    torch.save({reading.key_of(key): value for key, value in state.items()}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("net")
    config = ExportConfig(
        checkpoint=saved_checkpoint(request.param, folder),
        output=folder / "net.ran",
        calibration_data=IMAGES,
        calibration_images=64,
        recipe=RecipeOptions(resize="none", mean=(MEAN,) * 3, std=(STD,) * 3),
        cache_dir=folder / "cache",
        with_attention=True,
    )
    result = export_bundle(config)
    return Exported(
        request.param,
        config.checkpoint,
        result.bundle,
        {engine.backend: engine for engine in result.engines},
        folder / "cache",
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_engines_are_close_to_pytorch(exported, backend):
    golden = read_golden(exported.bundle)
    with load_engine(exported.bundle, backend, cache_dir=exported.cache).predictor as predictor:
        outputs = predictor.infer_batch(golden.inputs)
    limit = INT8_LIMITS.get(exported.kind, LIMITS[Precision.INT8])
    assert relative_l2(golden.logits["pytorch"], outputs) < limit


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
def test_float_graphs_are_close_to_pytorch(exported, precision, dialect):
    golden = read_golden(exported.bundle)
    reference = model_from_bytes(exported.bundle.read(REFERENCE_FILE))
    runner = open_reference(model_bytes(lower(reference, dialect, precision)))
    outputs = runner.infer({"image": golden.inputs})["logits"]
    runner.close()
    assert relative_l2(golden.logits["pytorch"], outputs) < LIMITS[precision]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_profile_finds_every_convolution_in_one_layer_of_its_part(exported, backend):
    bundle = exported.bundle
    engine = find_engine(bundle, backend, exported.cache)
    layers = profile_engine(
        backend, Workload(engine=engine.data, feeds={"image": read_golden(bundle).inputs[:1]}, runs=1, warm_up=0)
    ).layers
    graph = model_from_bytes(bundle.read(bundle.manifest.dialects[backend].graph)).graph
    assert_products_are_attributed(graph, layers)


def test_masks_of_the_reference_graph_are_those_of_pytorch(exported):
    checkpoint, manifest = load_checkpoint(exported.checkpoint), exported.bundle.manifest
    golden = read_golden(exported.bundle).inputs
    images = torch.from_numpy((golden.transpose(0, 3, 1, 2) / 255 - MEAN) / STD).float()
    with recorded_masks(checkpoint.module) as masks, torch.inference_mode():
        checkpoint.module(images)
    runner = open_reference(exported.bundle.read(REFERENCE_FILE))
    outputs = runner.infer({"image": golden})
    runner.close()
    assert [record.name for record in manifest.attention] == ["stage1.module1"]
    (mask,) = masks.values()
    assert mask.shape[2:] == (manifest.attention[0].height, manifest.attention[0].width)
    np.testing.assert_allclose(outputs["attention/stage1.module1"], mask.mean(1), rtol=1e-3, atol=1e-5)


def test_every_convolution_and_linear_layer_is_int8_in_every_dialect(exported):
    for record in exported.bundle.manifest.dialects.values():
        graph = model_from_bytes(exported.bundle.read(record.graph)).graph
        weighted = [node for node in graph if node.op_type in ("Conv", "Gemm", "MatMul")]
        assert len(weighted) > 15
        for node in weighted:
            assert [value.producer().op_type for value in node.inputs[:2]] == ["DequantizeLinear"] * 2
            assert array_of(node.inputs[1].producer().inputs[0]).dtype == np.int8


def test_tensorrt_rtx_builds_it(exported):
    pytest.importorskip("tensorrt_rtx")
    engine = exported.engines["tensorrt-rtx"]
    assert engine.record is not None, engine.reason
    assert len(engine.data) > 100_000
