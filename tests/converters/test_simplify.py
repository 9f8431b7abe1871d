from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters import simplify
from ran_deploy.converters.graph import MODULE, model_bytes
from ran_deploy.converters.simplify import relative_difference, simplified


@pytest.fixture
def model(build, rng):
    nodes = [
        make_node("Identity", ["x"], ["a"]),
        make_node("Mul", ["c", "c"], ["cc"]),
        make_node("Add", ["a", "cc"], ["b"]),
        make_node("Relu", ["b"], ["y"]),
    ]
    model = build(nodes, {"x": ["batch", 3, 4, 5]}, ["y"], {"c": rng.standard_normal((3, 1, 1)).astype(np.float32)})
    for node in model.graph:
        node.metadata_props[MODULE] = f"part.{node.op_type}"
    return model


def test_simplified_folds_and_keeps_outputs_and_modules(model, operators):
    found, note = simplified(model)
    assert operators(found) == ["Add", "Relu"]
    assert note.startswith("onnxsim: 4 -> 2 nodes")
    assert [node.metadata_props[MODULE] for node in found.graph] == ["part.Add", "part.Relu"]
    assert relative_difference(found, model, 2) == 0
    assert not found.metadata_props


def test_simplified_falls_back_when_onnxsim_cannot_read_the_graph(build):
    model = build([make_node("Relu", ["x"], ["y"])], {"x": ["batch", 3]}, ["y"])
    model.graph.node(0).domain = "nobody.knows"
    model.opset_imports["nobody.knows"] = 1
    before = model_bytes(model)
    found, note = simplified(model)
    assert found is model
    assert model_bytes(found) == before
    assert note.startswith("onnxsim was not used")


def test_simplified_falls_back_when_outputs_move(model, monkeypatch):
    monkeypatch.setattr(simplify, "MAX_DIFFERENCE", -1.0)  # no result is close enough
    found, note = simplified(model)
    assert found is model
    assert "it moved the outputs by 0.0e+00" in note


@pytest.mark.parametrize("differences", [[0.0, np.nan], [np.nan, 0.0]])
def test_simplified_falls_back_when_outputs_are_not_numbers(model, monkeypatch, differences):
    monkeypatch.setattr(simplify, "relative_difference", lambda *_: differences.pop())
    found, note = simplified(model)
    assert found is model
    assert "it moved the outputs by nan" in note


def test_relative_difference_is_nan_if_that_of_one_output_is(build):
    def outputs(second):
        nodes = [make_node("Neg", ["x"], ["y"]), make_node(second, ["x"], ["z"])]
        return build(nodes, {"x": ["batch", 3]}, ["y", "z"])

    assert np.isnan(relative_difference(outputs("Log"), outputs("Abs"), 3))


def test_simplified_falls_back_when_it_takes_too_long(model, monkeypatch):
    monkeypatch.setattr(simplify, "TIMEOUT_S", 1e-3)
    found, note = simplified(model)
    assert found is model
    assert "timed out" in note


def test_relative_difference_is_the_closed_form(build):
    def times(factor):
        return build([make_node("Mul", ["x", "f"], ["y"])], {"x": ["batch", 3]}, ["y"], {"f": np.float32(factor)})

    assert relative_difference(times(1.5), times(2), 3) == pytest.approx(0.25)


def test_simplified_takes_a_graph_whose_weights_onnxsim_stores_beside_it(build, operators):
    """From 100 MB on, it writes external data."""
    weight = np.zeros((5200, 5200), np.float32)
    weight[:3, :3] = 2
    nodes = [make_node("Identity", ["x"], ["a"]), make_node("MatMul", ["a", "w"], ["y"])]
    found, note = simplified(build(nodes, {"x": ["batch", 5200]}, ["y"], {"w": weight}))
    assert operators(found) == ["MatMul"]
    assert note.startswith("onnxsim: 2 -> 1 nodes")
