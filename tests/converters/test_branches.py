"""Trunk, soft mask and gate are told apart in every lowering of a graph, by its structure alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from onnx.helper import make_node
from torch import nn

from ran_deploy.converters.branches import find_branches
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.export import onnx_from_module
from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.models.design import Attention, Design, Learning, MaskJoin, Stage, Stem, Unit
from ran_deploy.models.network import build_network
from ran_deploy.precision import Precision

STAGES = (Stage(width=64, stride=1, modules=1, mask_depth=2), Stage(width=64, stride=2, modules=1, mask_depth=0))
SMALL = Design(stem=Stem.CONV3, stem_width=8, stages=STAGES, t=1)
DESIGNS = {
    "joined by skips": SMALL,
    "joined densely": replace(SMALL, join=MaskJoin.DENSE),
    "naive learning, channel attention": replace(SMALL, learning=Learning.NAIVE, attention=Attention.CHANNEL),
    "resnext units, spatial attention": replace(SMALL, unit=Unit.RESNEXT, attention=Attention.SPATIAL),
}


def network(design: Design) -> nn.Module:
    """Return a network of different tensors: of equal ones the exporter keeps one, and its module's path."""
    torch.manual_seed(0)
    module = build_network(design, 5).eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module


def assert_like_the_paths(graph) -> None:
    """The nodes of each branch are those whose module paths say so; whoever carries tensors has no path."""
    paths = {node: node.metadata_props[MODULE] for node in graph if node.metadata_props.get(MODULE)}
    for each in find_branches(graph):
        inside = {node: path.removeprefix(f"{each.path}.") for node, path in paths.items()}
        assert {n for n in each.mask if n in paths} == {n for n, p in inside.items() if p.split(".")[0] == "mask"}
        assert {n for n in each.trunk if n in paths} == {n for n, p in inside.items() if p.split(".")[0] == "trunk"}
        assert {node.op_type for node in each.gate} <= {"Add", "Mul"}
        assert [node for node in each.gate if node.op_type == "Mul"] == [
            node for node, path in paths.items() if path == each.path and node.op_type == "Mul"
        ]


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_branches_of_every_kind_of_module_are_those_of_its_paths(design):
    graph = run_passes(onnx_from_module(network(design), (24, 20)))[0].graph
    branches = find_branches(graph)
    assert [each.name for each in branches] == ["stage1.module1", "stage2.module1"]
    assert [each.path for each in branches] == ["stages.0.1", "stages.1.1"]
    assert_like_the_paths(graph)
    sums = sum(node.op_type == "Add" for each in branches for node in each.gate)
    assert sums == (0 if design.learning is Learning.NAIVE else 2)


@pytest.mark.parametrize("dialect", ["tensorrt", "openvino", "onnxruntime", "fp16"])
def test_branches_are_found_among_quantizers_and_casts(dialect, float_graph, artifact):
    lowered = lower_to_fp16(float_graph) if dialect == "fp16" else lower(artifact, dialect, Precision.INT8)
    assert len(find_branches(lowered.graph)) == 1
    assert_like_the_paths(lowered.graph)


def test_a_network_without_masks_has_no_branches(build):
    model = build([make_node("Relu", ["x"], ["y"])], {"x": ("N", 3, 5, 4)}, ["y"])
    assert find_branches(model.graph) == ()
