"""What kernels do of a graph: named by nodes or tensors, fused, carried, across parts."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.attribution import attribute
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.models.arithmetic import cost_of
from ran_deploy.network_parts import Part
from ran_deploy.precision import Precision

PATHS = {
    "stem_conv": "stem.0",
    "stem_relu": "stem.1",
    "norm": "body.norm",
    "relu": "body",
    "conv": "body.conv",
    "add": "body",
    "pool": "",
    "fc": "classifier",
}


@pytest.fixture
def graph(build):
    """Stem, one residual unit whose input is quantised, pool and classifier."""
    ones = np.ones
    constants = {
        "w0": ones((4, 3, 1, 1), np.float32),
        "w1": ones((4, 4, 1, 1), np.float32),
        "w2": ones((4, 5), np.float32),
        **{name: ones(4, np.float32) for name in ("scale", "bias", "mean", "var")},
        "step": np.float32(0.1),
        "zero": np.uint8(0),
    }
    nodes = [
        make_node("Conv", ["x", "w0"], ["a"], name="stem_conv"),
        make_node("Relu", ["a"], ["b"], name="stem_relu"),
        make_node("BatchNormalization", ["b", "scale", "bias", "mean", "var"], ["c"], name="norm"),
        make_node("Relu", ["c"], ["d"], name="relu"),
        make_node("QuantizeLinear", ["d", "step", "zero"], ["q"], name="quantize"),
        make_node("DequantizeLinear", ["q", "step", "zero"], ["e"], name="dequantize"),
        make_node("Conv", ["e", "w1"], ["f"], name="conv"),
        make_node("Add", ["f", "b"], ["g"], name="add"),
        make_node("GlobalAveragePool", ["g"], ["h"], name="pool"),
        make_node("Flatten", ["h"], ["i"], name="flatten"),
        make_node("MatMul", ["i", "w2"], ["y"], name="fc"),
    ]
    model = build(nodes, {"x": ("N", 3, 6, 5)}, ["y"], constants)
    for name, path in PATHS.items():
        model.graph.node(name).metadata_props[MODULE] = path
    return model.graph


def parts(graph, *kernels):
    return [found.place and found.place.part for found in attribute(graph, kernels)]


def test_kernels_are_found_by_the_names_of_nodes_and_of_tensors(graph):
    kernels = [["stem_conv"], ["d"], ["f"], ["g"], ["y"]]
    assert parts(graph, *kernels) == [Part.STEM, Part.UNITS, Part.UNITS, Part.UNITS, Part.CLASSIFIER]
    assert [found.path for found in attribute(graph, kernels)] == [
        "stem.0", "body.norm", "body.conv", "body", "classifier"
    ]  # fmt: skip


def test_names_of_other_things_are_passed_over(graph):
    found = attribute(graph, [["Multiply_17", "stem_conv", "Constant"], ["Multiply_17"]])
    assert [each.nodes for each in found] == [("stem_conv",), ()]
    assert (found[1].place, found[1].path, found[1].carries) == (None, "", False)


def test_a_fused_convolution_goes_to_the_kernel_named_after_what_comes_of_it(graph):
    found = attribute(graph, [["stem_relu"], ["norm"], ["add"]])
    assert [each.nodes for each in found] == [("stem_conv", "stem_relu"), ("norm",), ("conv", "add")]


@pytest.mark.parametrize("dialect", ["float", "tensorrt", "openvino", "onnxruntime", "fp16"])
def test_arithmetic_is_that_of_the_design_in_every_dialect(dialect, ran, float_graph, artifact):
    lowered = {"float": lambda: float_graph, "fp16": lambda: lower_to_fp16(float_graph)}.get(
        dialect, lambda: lower(artifact, dialect, Precision.INT8)
    )()
    found = attribute(lowered.graph, [[node.name] for node in lowered.graph])
    _, height, width, _ = float_graph.graph.inputs[0].shape
    assert sum(each.multiply_adds for each in found) == cost_of(ran.design, 5, (height, width)).multiply_adds


def test_a_fused_convolution_is_given_once(graph):
    found = attribute(graph, [["b"], ["stem_relu"]])
    assert [each.nodes for each in found] == [("stem_conv", "stem_relu"), ("stem_relu",)]


def test_a_quantizer_that_does_a_batch_norm_is_no_conversion(graph):
    (_, with_norm) = attribute(graph, [["stem_conv"], ["quantize"]])
    assert with_norm.nodes == ("norm", "relu", "quantize")
    assert (with_norm.place.part, with_norm.carries) == (Part.UNITS, False)


def test_a_quantizer_behind_a_named_batch_norm_carries(graph):
    (_, quantize, both) = attribute(graph, [["norm"], ["quantize"], ["quantize", "dequantize"]])
    assert (quantize.nodes, quantize.place, quantize.carries) == (("quantize",), None, True)
    assert (both.place, both.carries) == (None, True)


def test_a_kernel_of_several_parts_counts_for_its_convolution(graph):
    (found,) = attribute(graph, [["stem_conv", "norm", "relu", "quantize"]])
    assert (found.place.part, found.path) == (Part.STEM, "stem.0")


def test_a_kernel_of_several_parts_without_one_is_of_none(graph):
    (found,) = attribute(graph, [["stem_relu", "norm"], ["stem_conv"]])[:1]
    assert (found.nodes, found.place, found.carries) == (("stem_relu", "norm"), None, False)
    (found,) = attribute(graph, [["stem_conv", "conv"]])
    assert found.place is None
