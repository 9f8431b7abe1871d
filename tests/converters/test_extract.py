from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.extract import behind_pair, extract
from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.converters.qdq import insert_pair
from ran_deploy.errors import ConversionError


@pytest.fixture
def model(build):
    """a = x + 1; b = |a|; c = a * b; y = c + w, where w is made of constants; z = -b."""
    return build(
        [
            make_node("Add", ["x", "one"], ["a"]),
            make_node("Abs", ["a"], ["b"]),
            make_node("Mul", ["a", "b"], ["c"]),
            make_node("Neg", ["one"], ["w"]),
            make_node("Add", ["c", "w"], ["y"]),
            make_node("Neg", ["b"], ["z"]),
        ],
        {"x": ["batch", 3]},
        ["y", "z"],
        {"one": np.ones(3, np.float32)},
    )


def names(values):
    return [value.name for value in values]


def test_a_part_computes_what_the_whole_does(model, evaluate, rng):
    part = extract(model, ["y"], given=["a", "b"])
    check(part)
    a, b = rng.standard_normal((2, 4, 3)).astype(np.float32)
    assert (names(part.graph.inputs), names(part.graph.outputs)) == (["a", "b"], ["y"])
    np.testing.assert_array_equal(evaluate(part, {"a": a, "b": b})[0], a * b - 1)


def test_a_path_around_what_is_given_comes_along(model, evaluate):
    part = extract(model, ["c"], given=["b"])
    assert names(part.graph.inputs) == ["x", "b"]
    x = np.full((2, 3), 4, np.float32)
    np.testing.assert_array_equal(evaluate(part, {"x": x, "b": 10 * x})[0], 5 * 10 * x)


def test_what_is_given_and_not_needed_is_left_out(model):
    part = extract(model, ["z"], given=["a", "b", "c"])
    assert (names(part.graph.inputs), len(part.graph)) == (["b"], 1)


def test_with_nothing_given_it_starts_at_the_graphs_inputs(model):
    part = extract(model, ["b", "a"])
    assert (names(part.graph.inputs), names(part.graph.outputs), len(part.graph)) == (["x"], ["b", "a"], 2)


def test_the_whole_stays_as_it_is(model):
    before = model_bytes(model)
    extract(model, ["y"], given=["b"])
    assert model_bytes(model) == before


@pytest.mark.parametrize(
    ("outputs", "given", "word"), [(["q"], [], "'q'"), (["y"], ["q"], "'q'"), (["y"], ["y"], "'y'")]
)
def test_unknown_and_contradictory_names_are_refused(outputs, given, word, model):
    with pytest.raises(ConversionError, match=word):
        extract(model, outputs, given=given)


def test_a_tensor_that_only_a_pair_reads_is_cut_behind_the_pair(model):
    pair = insert_pair(model.graph, model.graph.node(2).outputs[0], np.float32(0.1), np.int8(0))
    model.graph.node(-2).replace_input_with(0, pair.dequantize.outputs[0])
    assert behind_pair(model.graph, "c") == "c_dequantized"


def test_a_tensor_that_others_read_too_or_that_is_an_output_is_cut_as_it_is(model):
    for name in ("a", "y"):
        value = next(v for node in model.graph for v in node.outputs if v.name == name)
        insert_pair(model.graph, value, np.float32(0.1), np.int8(0))
    assert [behind_pair(model.graph, name) for name in ("a", "b", "y")] == ["a", "b", "y"]
