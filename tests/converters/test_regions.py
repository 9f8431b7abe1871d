from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from onnx.helper import make_node

from ran_deploy.converters.dialects import lower
from ran_deploy.converters.extract import extract
from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.regions import ROOT, find_regions
from ran_deploy.precision import Precision


def labelled(model: ir.Model, *paths: str | None) -> ir.Model:
    for node, path in zip(model.graph, paths, strict=True):
        if path is not None:
            node.metadata_props[MODULE] = path
    return model


@pytest.fixture
def chain(build):
    """Return a function that gives a line of Neg nodes, t0 = -x and so on, one for each module path."""

    def make(*paths: str | None) -> ir.Model:
        tensors = ["x", *(f"t{i}" for i in range(len(paths)))]
        nodes = [make_node("Neg", [a], [b]) for a, b in itertools.pairwise(tensors)]
        return labelled(build(nodes, {"x": ["batch", 3]}, tensors[-1:]), *paths)

    return make


NAMES = {
    "a unit with its children": (["u.conv", "u", "u.norm"], ["u"]),
    "children without a unit": (["u.0", "u.1", "v.0"], ["u", "v"]),
    "children that have children": (["u.a.conv", "u.b.conv", "u"], ["u.a", "u.b", "u"]),
    "a module entered again": (["m", "m.x.conv", "m"], ["m", "m.x", "m #2"]),
    "leaves of the network": (["stem", "fc"], ["stem", "fc"]),
    "no module at the end": (["u.conv", ""], ["u", ROOT]),
    "a sum between two parts of a module": (["s.1.a.conv", "", "s.1.b.conv"], ["s.1.a", "s.1", "s.1.b"]),
    "a sum between two modules": (["u.conv", "", "v.conv"], ["u", ROOT, "v"]),
    "put there by a conversion": (["u.conv", None, "v.conv"], ["u", "v"]),
    "no modules at all": ([None, None], [ROOT]),
}


@pytest.mark.parametrize("case", NAMES)
def test_regions_are_named_after_modules(case, chain):
    paths, wanted = NAMES[case]
    assert [region.name for region in find_regions(chain(*paths).graph)] == wanted


def test_tensors_that_cross_a_boundary_are_inputs_and_outputs(build):
    nodes = [
        make_node("Neg", ["x"], ["a"]),
        make_node("Abs", ["a"], ["b"]),
        make_node("Add", ["a", "b"], ["c"]),
        make_node("Mul", ["c", "a"], ["y"]),
    ]
    model = labelled(build(nodes, {"x": ["batch", 3]}, ["y"]), "u", "u", "v", "v")
    first, second = find_regions(model.graph)
    assert (first.inputs, first.tensors, first.outputs) == (("x",), ("a", "b"), ("a", "b"))
    assert (second.inputs, second.tensors, second.outputs) == (("a", "b"), ("c", "y"), ("y",))


def test_integers_cross_no_boundary(build):
    nodes = [make_node("Neg", ["x"], ["a"]), make_node("Shape", ["a"], ["s"]), make_node("Reshape", ["x", "s"], ["y"])]
    model = labelled(build(nodes, {"x": ["batch", 3]}, ["y"]), "u", "v", "w")
    found = {region.name: (region.inputs, region.outputs) for region in find_regions(model.graph)}
    assert found == {"u": (("x",), ("a",)), "w": (("x", "a"), ("y",))}


def test_weights_made_of_constants_are_no_inputs(build):
    nodes = [make_node("Neg", ["k"], ["w"]), make_node("Add", ["x", "w"], ["y"])]
    model = labelled(build(nodes, {"x": ["batch", 3]}, ["y"], {"k": np.ones(3, np.float32)}), "u", "v")
    (region,) = find_regions(model.graph)
    assert (region.name, region.inputs, region.outputs) == ("v", ("x",), ("y",))


@pytest.fixture(params=["tensorrt", "openvino", "onnxruntime"])
def dialect(request, artifact):
    return lower(artifact, request.param, Precision.INT8)


def test_every_dialect_keeps_the_tensors_of_the_float_graph(dialect, float_graph):
    exact, lowered = find_regions(float_graph.graph), find_regions(dialect.graph)
    assert [region.name for region in exact] == [region.name for region in lowered]
    assert [region.inputs for region in exact] == [region.inputs for region in lowered]
    assert [region.outputs for region in exact] == [region.outputs for region in lowered]
    assert len(exact) > 10


def test_fp16_keeps_the_tensors_of_the_float_graph(float_graph):
    exact, lowered = (find_regions(m.graph) for m in (float_graph, lower(float_graph, "tensorrt", Precision.FP16)))
    assert [region.outputs for region in exact] == [region.outputs for region in lowered]


def test_each_region_is_computed_from_its_inputs_alone(dialect):
    for region in find_regions(dialect.graph):
        given = [name for name in region.inputs if name != "image"]
        part = extract(dialect, region.outputs, given=given)
        assert {value.name for value in part.graph.inputs} == set(region.inputs)
