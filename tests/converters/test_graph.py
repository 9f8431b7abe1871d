from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import (
    RANGE,
    add_constant,
    array_of,
    check,
    model_bytes,
    model_from_bytes,
    unused_name,
)
from ran_deploy.errors import ConversionError


@pytest.fixture
def model(build):
    return build([make_node("Add", ["x", "w"], ["y"])], {"x": ["batch", 3]}, ["y"], {"w": np.ones(3, np.float32)})


def test_bytes_come_back_as_the_same_model(model):
    model.graph.inputs[0].metadata_props[RANGE] = "2.5"
    again = model_from_bytes(model_bytes(model))
    assert model_bytes(again) == model_bytes(model)
    assert again.graph.inputs[0].metadata_props[RANGE] == "2.5"
    np.testing.assert_array_equal(array_of(again.graph.initializers["w"]), np.ones(3))


@pytest.mark.parametrize("data", [b"", b"not a model at all", b"\x08\x0a"])
def test_bytes_of_anything_else_are_refused(data):
    with pytest.raises(ConversionError, match="Export the graph again"):
        model_from_bytes(data)


def test_check_names_what_is_wrong(model):
    model.graph.node(0).op_type = "Addd"
    with pytest.raises(ConversionError, match="Addd"):
        check(model)


def test_check_sees_types_that_do_not_fit(build):
    model = build([make_node("Relu", ["x"], ["y"])], {"x": [2]}, ["y"])
    model.graph.outputs[0].shape = model.graph.outputs[0].shape.__class__([3])
    with pytest.raises(ConversionError, match="not valid ONNX"):
        check(model)


def test_constants_get_names_of_their_own(model):
    value = add_constant(model.graph, "w", np.float32(3))
    assert value.name != "w"
    assert unused_name(model.graph, "fresh") == "fresh"
    assert unused_name(model.graph, "y") not in ("w", "x", "y", value.name)


def test_an_initializer_that_is_also_an_input_is_no_constant(model):
    assert array_of(model.graph.initializers["w"]) is not None
    model.graph.inputs.append(model.graph.initializers["w"])
    assert array_of(model.graph.initializers["w"]) is None
    assert array_of(model.graph.inputs[0]) is None
