"""Regions of networks: names by the terms of docs/models.md, costs against the arithmetic of designs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.converters.float_regions import coarsened, distinct, find_float_regions, readable_region, units_of
from ran_deploy.converters.graph import model_from_bytes
from ran_deploy.converters.quantize import find_weighted_nodes
from ran_deploy.models.arithmetic import cost_of
from ran_deploy.models.zoo import ARCHITECTURES


@pytest.fixture(scope="module")
def demo_graph(demo) -> ir.Graph:
    return model_from_bytes(open_bundle(demo.bundle).read("reference.onnx")).graph


def test_the_demo_network_falls_into_its_units(demo_graph):
    names = [region.name for region in find_float_regions(demo_graph)]
    assert len(names) == len(set(names)) == 29
    assert names[:3] == ["stem", "stage1.entry", "stage1.module1.pre.unit1"]
    assert names[-1] == "classifier"
    assert {"stage1.module1.mask.down1.unit1", "stage2.module1.mask.bottom.unit2", "stage3.module1.mask.gate"} < set(
        names
    )


@pytest.mark.parametrize("most", [1, 20, 100])
def test_every_node_of_the_base_rule_is_in_one_region(demo_graph, most):
    regions = find_float_regions(demo_graph, most)
    nodes = [node for region in regions for node in region.nodes]
    assert sorted(nodes) == sorted(node.name for node in find_weighted_nodes(demo_graph))
    assert len(regions) <= max(most, 3)


def test_costs_add_up_to_those_of_the_design(demo_graph):
    expected = cost_of(ARCHITECTURES["compact-attention"].design, 10, (32, 32)).multiply_adds
    assert sum(region.multiply_adds for region in find_float_regions(demo_graph)) == expected


def matmul_graph() -> ir.Graph:
    """(N, 5, 12) tokens by (12, 7) weights: 5 * 12 * 7 multiply-adds, from no known module."""
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((12, 7), np.float32)), shape=ir.Shape([12, 7]))
    x = ir.Value(name="x", shape=ir.Shape(["N", 5, 12]), type=ir.TensorType(ir.DataType.FLOAT))
    y = ir.Value(name="y", shape=ir.Shape(["N", 5, 7]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node("MatMul", [x, weight], outputs=[y], name="project")
    return ir.Graph([x], [y], nodes=[node], initializers=[weight], opset_imports={"": 18})


def test_a_layer_of_no_known_module_is_a_region_with_the_nodes_name():
    (region,) = find_float_regions(matmul_graph())
    assert (region.name, region.nodes, region.multiply_adds) == ("project", ("project",), 5 * 12 * 7)


def test_a_shortcut_and_the_branches_of_a_unit_belong_to_the_unit():
    paths = ["layer1.0.conv1", "layer1.0.conv2", "layer1.0.downsample.0", "mix.0.a.0", "mix.0.a.1", "mix.0.b", "head"]
    assert units_of(paths) == ["layer1.0"] * 3 + ["mix.0"] * 3 + ["head"]


def test_a_flat_list_of_many_layers_is_no_unit():
    paths = [f"features.{index}" for index in range(13)] + ["classifier.0", "classifier.3"]
    assert units_of(paths) == paths[:13] + ["classifier"] * 2


def test_a_wrapped_networks_first_layer_does_not_swallow_the_rest():
    paths = ["backbone.conv1", *(f"backbone.layer1.{unit}.conv{layer}" for unit in range(5) for layer in (1, 2))]
    assert len(set(units_of(paths))) == 6


def test_too_many_units_are_joined_the_most_deeply_nested_first():
    units = ["stem", "a.0", "a.1", "b.mask.down.0", "b.mask.down.1"]
    assert coarsened(units, 4) == ["stem", "a.0", "a.1", "b.mask.down", "b.mask.down"]
    assert coarsened(units, 3) == ["stem", "a", "a", "b", "b"]
    assert coarsened(["a", "b", "c"], 2) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("stem.0", "stem"),
        ("embedding.1", "embedding"),
        ("stages.1.0", "stage2.entry"),
        ("stages.1.2.trunk.1", "stage2.module2.trunk.unit2"),
        ("stages.1.1.mask.skip.0", "stage2.module1.mask.skip1"),
        ("stages.1.1.mask.up.1.0", "stage2.module1.mask.up2.unit1"),
        ("stages.1.1.mask.head", "stage2.module1.mask.gate"),
        ("stages.1.1", "stage2.module1"),
        ("stages.1.4", "stage2.closing2"),
        ("layer1.0", "layer1.0"),
    ],
)
def test_regions_are_called_what_people_call_them(path, name):
    layers = ["stages.1.1.mask.head.2", "stages.1.2.trunk.1.conv1", "stages.0.1.pre.0.conv1", "stages.1.4.conv1"]
    assert readable_region(path, layers) == name


def test_equal_names_are_numbered():
    assert distinct({"a": "x", "b": "x", "c": "y"}) == {"a": "x", "b": "x.2", "c": "y"}
