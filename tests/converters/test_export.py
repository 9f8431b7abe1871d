from __future__ import annotations

import logging
import sysconfig
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import ARTIFACT_OPSET, IR_VERSION, MODULE, check, model_bytes
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError

RELATIVE_L2 = 1e-4  # what the project promises for float32 on every CPU engine


def relative_l2(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def engines(model, feeds):
    """Yield the outputs of both CPU engines in float32."""
    yield run_unoptimised(model, feeds)[0]
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model_bytes(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    yield compiled(feeds)[0]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_ran_agrees_with_pytorch_in_both_engines(ran, clean, rng, batch):
    x = rng.standard_normal((batch, 3, 46, 34)).astype(np.float32)
    with torch.no_grad():
        wanted = ran(torch.from_numpy(x)).numpy()
    for found in engines(clean, {"image": x}):
        assert relative_l2(found, wanted) < RELATIVE_L2


@pytest.mark.parametrize("size", [(40, 91)])
def test_another_size_is_another_graph_that_agrees_too(ran, rng, size):
    model, _ = run_passes(onnx_from_module(ran, size))
    x = rng.standard_normal((2, 3, *size)).astype(np.float32)
    with torch.no_grad():
        wanted = ran(torch.from_numpy(x)).numpy()
    for found in engines(model, {"image": x}):
        assert relative_l2(found, wanted) < RELATIVE_L2


def test_only_the_batch_is_dynamic(exported):
    (image,), (logits,) = exported.graph.inputs, exported.graph.outputs
    assert (image.name, logits.name) == ("image", "logits")
    assert [str(n) for n in image.shape] == ["batch", "3", "46", "34"]
    assert [str(n) for n in logits.shape] == ["batch", "5"]
    assert exported.opset_imports == {"": ARTIFACT_OPSET}
    assert exported.ir_version == IR_VERSION
    check(exported)


def test_nodes_know_the_module_they_came_from(ran, exported):
    modules = {name for name, _ in ran.named_modules()}
    paths = [node.metadata_props[MODULE] for node in exported.graph]
    assert set(paths) <= modules
    convolutions = {node.metadata_props[MODULE] for node in exported.graph if node.op_type == "Conv"}
    assert convolutions == {name for name, part in ran.named_modules() if isinstance(part, nn.Conv2d)}
    sigmoids = [node.metadata_props[MODULE] for node in exported.graph if node.op_type == "Sigmoid"]
    assert sigmoids == ["stages.0.1.mask.head.6"]


def test_no_local_path_is_left(exported):
    data = model_bytes(exported)
    for leak in (str(Path(__file__).parent.parent), sysconfig.get_paths()["purelib"], ".py", "stack_trace"):
        assert leak.encode() not in data


class Tiny(nn.Module):
    """A module with dropout and its own names, to be exported in training mode and float64."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.9), nn.ReLU())

    def forward(self, x):
        return self.body(x).mean((2, 3))


def test_a_foreign_module_is_exported_in_eval_mode_and_stays_as_it_is(rng, capfd, caplog):
    module = Tiny().double().train()
    with caplog.at_level(logging.DEBUG):
        model = onnx_from_module(module, (9, 7), input_name="pixels", output_name="features", channels=1)
    assert module.training
    assert module.body[0].weight.dtype == torch.float64
    assert capfd.readouterr() == ("", "")
    x = rng.standard_normal((3, 1, 9, 7))
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x)).numpy()
    assert relative_l2(run_unoptimised(model, {"pixels": x.astype(np.float32)})[0], wanted) < RELATIVE_L2
    assert model.graph.outputs[0].name == "features"


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Twin(nn.Module):
    def forward(self, x):
        return x + 1, x - 1


def test_a_module_that_cannot_be_traced_is_refused_in_one_line():
    with pytest.raises(ConversionError, match="Cannot export Undecided at input size 8x6: ") as failure:
        onnx_from_module(Undecided(), (8, 6))
    assert "\n" not in str(failure.value)


def test_a_module_with_two_outputs_is_refused():
    with pytest.raises(ConversionError, match="Twin has 1 inputs and 2 outputs"):
        onnx_from_module(Twin(), (8, 6))
