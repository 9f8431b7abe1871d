"""Layers are found again in every lowering of their graph, with what int8 holds of their inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import module_of
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.layers import find_layers, stage_of
from ran_deploy.converters.quantize import find_weighted_nodes, insert_qdq
from ran_deploy.precision import Precision


@pytest.fixture(scope="module", params=["artifact", "tensorrt", "openvino", "onnxruntime", "fp16"])
def dialect(request, float_graph, artifact):
    if request.param == "artifact":
        return request.param, artifact
    if request.param == "fp16":
        return request.param, lower_to_fp16(float_graph)
    return request.param, lower(artifact, request.param, Precision.INT8)


def test_every_layer_is_found_in_every_dialect(dialect, float_graph):
    _, lowered = dialect
    found = find_layers(float_graph.graph, lowered.graph)
    nodes = find_weighted_nodes(float_graph.graph)
    assert [layer.output for layer in found] == [node.outputs[0].name for node in nodes]
    assert [layer.name for layer in found] == [module_of(node) for node in nodes]
    assert {layer.stage for layer in found} == {"stem", "stage1", "stage2", "classifier"}


def test_layers_of_masks_are_those_whose_path_says_so(dialect, float_graph):
    _, lowered = dialect
    found = find_layers(float_graph.graph, lowered.graph)
    assert [layer.in_mask for layer in found] == [".mask." in layer.name for layer in found]
    assert any(layer.in_mask for layer in found)


def test_the_range_of_an_input_is_the_calibrated_one(dialect, float_graph, ranges):
    name, lowered = dialect
    for layer in find_layers(float_graph.graph, lowered.graph):
        if name == "fp16":
            assert layer.input is None
            continue
        assert layer.input is not None, layer.name
        node = next(n for n in find_weighted_nodes(float_graph.graph) if n.outputs[0].name == layer.output)
        assert layer.input.tensor == node.inputs[0].name
        half = 1e-3 if name == "tensorrt" else 1e-6  # scales in FP16
        assert layer.input.high == pytest.approx(ranges[layer.input.tensor], rel=half)
        assert layer.input.low in (0.0, pytest.approx(-128 * layer.input.scale))


def test_a_layer_kept_in_float_has_no_range(float_graph, ranges):
    model = float_graph.clone()
    node = find_weighted_nodes(model.graph)[3]
    insert_qdq(model, ranges, keep_float=[node.name])
    found = find_layers(float_graph.graph, model.graph)
    assert [layer.output for layer in found if layer.input is None] == [node.outputs[0].name]


def test_a_layer_that_a_dialect_lacks_is_left_out(build):
    weight = {"w": np.ones((2, 3, 1, 1), np.float32)}
    node = onnx.helper.make_node
    first = build([node("Conv", ["x", "w"], ["y"])], {"x": ("N", 3, 5, 4)}, ["y"], weight)
    second = build([node("Conv", ["x", "w"], ["z"])], {"x": ("N", 3, 5, 4)}, ["z"], weight)
    assert [layer.output for layer in find_layers(first.graph, first.graph)] == ["y"]
    assert find_layers(first.graph, second.graph) == ()


@pytest.mark.parametrize(
    ("path", "stage"),
    [("stages.0.2.trunk", "stage1"), ("stages.12", "stage13"), ("stagesX.1", "stagesX"), ("fc", "fc"), ("", "")],
)
def test_stages_are_counted_from_one_and_other_paths_name_themselves(path, stage):
    assert stage_of(path) == stage
