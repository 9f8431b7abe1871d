"""Engines of small INT8 graphs that are spoilt on purpose while they are built."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.helper import make_node

from ran_deploy.converters.builders import BUILDERS, BuildOptions
from ran_deploy.converters.builders.ort import OrtBuilder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import MODULE, add_constant, array_of, model_bytes, model_from_bytes
from ran_deploy.converters.quantize import find_calibrated_tensors, insert_qdq, with_outputs
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import BuildError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.workflows.diagnosis.cuts import EngineCuts, ExactGraph, Part
from ran_deploy.workflows.diagnosis.engine_divergence import find_departure

TOLERANCE = 0.03
UNITS = ("u", "v", "w")
CONVOLUTIONS = [f"{unit}.{conv}" for unit in UNITS for conv in "ab"]


def unit(name: str, source: str) -> list[onnx.NodeProto]:
    """A residual unit: Conv, Relu, Conv, and the sum with what went in."""
    return [
        make_node("Conv", [source, f"{name}.a.weight"], [f"{name}.a"], pads=[1, 1, 1, 1]),
        make_node("Relu", [f"{name}.a"], [f"{name}.relu"]),
        make_node("Conv", [f"{name}.relu", f"{name}.b.weight"], [f"{name}.b"], pads=[1, 1, 1, 1]),
        make_node("Add", [f"{name}.b", source], [name]),
    ]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((5, 6, 9, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(images) -> ir.Model:
    """Three residual units and a mean, in ONNX Runtime's INT8 dialect."""
    rng = np.random.default_rng(5)
    nodes = [node for name, source in zip(UNITS, ("image", "u", "v"), strict=True) for node in unit(name, source)]
    nodes.append(make_node("GlobalAveragePool", ["w"], ["logits"]))
    weights = {f"{name}.weight": rng.normal(0, 0.15, (6, 6, 3, 3)).astype(np.float32) for name in CONVOLUTIONS}
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "test",
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 6, 9, 7])],
            [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)],
            [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=10,
    )
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))
    for node in model.graph:
        tensor = node.outputs[0].name
        node.metadata_props[MODULE] = {"logits": ""}.get(tensor, tensor.removesuffix(".relu"))
    names = find_calibrated_tensors(model)
    arrays = run_unoptimised(with_outputs(model, names), {"image": images})
    found = dict(zip([v.name for v in with_outputs(model, names).graph.outputs], arrays, strict=True))
    insert_qdq(model, {name: float(np.abs({"image": images, **found}[name]).max()) for name in names})
    return lower(model, "onnxruntime", Precision.INT8)


def spoil(graph: bytes, tensor: str) -> bytes:
    """Give the first channel of the weights of the convolution that makes `tensor` three times its scale."""
    model = model_from_bytes(graph)
    node = next(node for node in model.graph if node.outputs[0].name == tensor)
    dequantize = node.inputs[1].producer()
    scale = array_of(dequantize.inputs[1]).copy()
    scale[0] *= 3
    dequantize.replace_input_with(1, add_constant(model.graph, "spoilt", scale))
    return model_bytes(model)


def made_in(graph: bytes) -> set[str]:
    return {output.name for node in model_from_bytes(graph).graph for output in node.outputs}


@pytest.fixture
def cuts(graph, images, monkeypatch):
    """Return a function that gives cuts whose builder first lets `change` at the graph."""

    def make(change: Callable[[bytes], bytes] = lambda graph: graph, **settings) -> EngineCuts:
        class Changed(OrtBuilder):
            def build(self, graph, options, progress=None):
                return super().build(change(graph), options, progress)

        monkeypatch.setattr("ran_deploy.converters.builders.ort.OrtBuilder", Changed)
        exact = ExactGraph(graph, "onnxruntime", Precision.INT8, images)
        options = BuildOptions(precision=Precision.INT8, batch=BatchProfile(minimum=1, optimum=4, maximum=4))
        return EngineCuts(exact, "onnxruntime", options, **{"batch": 4, **settings})

    assert BUILDERS["onnxruntime"].endswith("ort:OrtBuilder")
    return make


def test_a_healthy_engine_departs_nowhere(cuts):
    found = find_departure(cuts(), TOLERANCE)
    assert found.departure is None
    assert [region.region for region in found.regions] == ["u", "v", "w", "(network)"]
    assert not any(region.beyond for region in found.regions)
    assert max(region.alone for region in found.regions) < 0.002


@pytest.mark.parametrize("tensor", CONVOLUTIONS)
def test_a_changed_scale_is_found_at_its_very_node(tensor, cuts):
    found = find_departure(cuts(lambda graph: spoil(graph, tensor) if tensor in made_in(graph) else graph), TOLERANCE)
    departure = found.departure
    assert (departure.tensor, departure.operator, departure.region) == (tensor, "Conv", tensor[0])
    assert departure.alone
    assert departure.part_error > departure.limit
    source = {"u.a": "image", "v.a": "u", "w.a": "v"}.get(tensor, f"{tensor[0]}.relu")
    assert departure.inputs == (source,)
    assert [region.region for region in found.regions if region.beyond] == [tensor[0]]


def test_of_two_faults_the_first_is_found(cuts):
    def both(graph: bytes) -> bytes:
        for tensor in ("w.a", "v.b"):
            graph = spoil(graph, tensor) if tensor in made_in(graph) else graph
        return graph

    found = find_departure(cuts(both), TOLERANCE)
    assert found.departure.tensor == "v.b"
    assert [region.region for region in found.regions if region.beyond] == ["v", "w"]


def test_a_fault_that_needs_what_comes_before_is_found_in_its_surroundings(cuts):
    def in_context(graph: bytes) -> bytes:
        return spoil(graph, "v.b") if {"u.b", "v.b"} <= made_in(graph) else graph

    found = find_departure(cuts(in_context), TOLERANCE)
    departure = found.departure
    assert (departure.tensor, departure.region, departure.alone) == ("v.b", "v", False)
    assert not any(region.beyond for region in found.regions)
    assert set(departure.inputs) == {"u.relu", "image"}  # the least that still holds u.b


def test_a_fault_that_a_cut_inside_the_region_hides_is_told_at_its_end(cuts):
    def when_fused(graph: bytes) -> bytes:
        return spoil(graph, "v.a") if {"v.a", "v"} <= made_in(graph) else graph

    departure = find_departure(cuts(when_fused), TOLERANCE).departure
    assert (departure.tensor, departure.operator) == ("v", "Add")
    assert departure.inputs == ("u",)


def test_a_fault_at_one_batch_size_is_found_at_that_size(cuts):
    broken = lambda graph: spoil(graph, "v.a") if "v.a" in made_in(graph) else graph  # noqa: E731
    assert find_departure(cuts(broken, batch=1), TOLERANCE).departure.tensor == "v.a"


def test_outputs_that_are_not_finite_are_the_worst(cuts):
    def overflow(graph: bytes) -> bytes:
        model = model_from_bytes(graph)
        for node in model.graph:
            if node.outputs[0].name == "v":
                node.replace_input_with(1, add_constant(model.graph, "infinite", np.float32([math.inf])))
        return model_bytes(model)

    departure = find_departure(cuts(overflow), TOLERANCE).departure
    assert (departure.tensor, departure.error) == ("v", math.inf)


def test_what_cannot_be_built_alone_proves_nothing(cuts):
    def refuse(graph: bytes) -> bytes:
        if "v" in made_in(graph) and "u" not in made_in(graph):
            raise BuildError("no such layer")
        return graph

    found = find_departure(cuts(refuse), TOLERANCE)
    assert found.departure is None
    assert [region.refused for region in found.regions] == [None, "no such layer", None, None]
    assert math.isnan(found.regions[1].alone)


def test_rows_fill_whole_batches_and_engines_are_counted(cuts):
    told = []
    some = cuts(progress=told.append)
    model = some.model(Part(("u",)))
    order, outputs = some.run(model, some.feeds(model))
    assert order.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    np.testing.assert_array_equal(outputs["u"][5:], outputs["u"][:3])
    assert told == [1]
