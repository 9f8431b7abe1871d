"""Every node that computes has its part of the network, in every lowering of a graph."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.attention import add_attention_outputs
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.places import Place, find_places
from ran_deploy.network_parts import Part
from ran_deploy.precision import Precision

MODULE1 = "stage1.module1"


def expected(path: str, operator: str) -> Place:
    """Return the place that the path of a node in the small network of these tests says."""
    top, *rest = path.split(".")
    if top in ("prologue", "stem"):
        return Place(Part.PROLOGUE if top == "prologue" else Part.STEM)
    if top != "stages":  # the last norm, or no path: a network writes (1 + M) and the mean as plain arithmetic
        return Place(Part.GATE, MODULE1) if operator == "Add" else Place(Part.CLASSIFIER)
    if rest[:2] != ["0", "1"]:
        return Place(Part.UNITS)
    if len(rest) == 2:
        return Place(Part.GATE, MODULE1)
    return Place({"mask": Part.MASK, "trunk": Part.TRUNK}.get(rest[2], Part.UNITS), MODULE1)


@pytest.mark.parametrize("dialect", ["float", "tensorrt", "openvino", "onnxruntime", "fp16"])
def test_places_are_those_that_the_paths_say(dialect, float_graph, artifact):
    lowered = {"float": lambda: float_graph, "fp16": lambda: lower_to_fp16(float_graph)}.get(
        dialect, lambda: lower(artifact, dialect, Precision.INT8)
    )()
    places = find_places(lowered.graph)
    labelled = {node: node.metadata_props[MODULE] for node in lowered.graph if MODULE in node.metadata_props}
    assert labelled.keys() <= places.keys()
    for node, path in labelled.items():
        assert places[node] == expected(path, node.op_type), node.name
    assert {place.part for place in places.values()} == {
        Part.PROLOGUE, Part.STEM, Part.UNITS, Part.TRUNK, Part.MASK, Part.GATE, Part.CLASSIFIER
    }  # fmt: skip
    assert not {node.op_type for node in places if MODULE not in node.metadata_props} & {"QuantizeLinear", "Conv"}


def test_attention_outputs_are_a_part_of_their_own(float_graph):
    model = float_graph.clone()
    add_attention_outputs(model)
    found = [node.op_type for node, place in find_places(model.graph).items() if place.part is Part.ATTENTION]
    assert found == ["ReduceMean"]


def test_without_a_convolution_all_is_units(build):
    model = build([make_node("Relu", ["x"], ["y"])], {"x": ("N", 3, 5, 4)}, ["y"])
    assert list(find_places(model.graph).values()) == [Place(Part.UNITS)]


def test_a_convolution_in_the_same_module_as_the_last_one_is_no_stem(build):
    weight = {"w": np.ones((3, 3, 1, 1), np.float32)}
    nodes = [make_node("Conv", [a, "w"], [b]) for a, b in itertools.pairwise("xyz")]
    model = build([*nodes, make_node("Flatten", ["z"], ["o"])], {"x": ("N", 3, 5, 4)}, ["o"], weight)
    for node, path in zip(model.graph, ("net.a", "net.b", "fc"), strict=True):
        node.metadata_props[MODULE] = path
    assert [place.part for place in find_places(model.graph).values()] == [Part.UNITS, Part.UNITS, Part.CLASSIFIER]
