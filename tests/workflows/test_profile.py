"""A profile of the demo network's real engines: every convolution is found once, where its module is; sums agree."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from attributed_products import assert_products_are_attributed, part_of, product_paths

from ran_deploy.bundle import open_bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import model_bytes, model_from_bytes
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.errors import ConfigError, EngineMismatchError
from ran_deploy.manifest import BatchProfile
from ran_deploy.models.arithmetic import cost_of
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.network_parts import Part
from ran_deploy.precision import Precision
from ran_deploy.runtime.profiles import Workload, profile_engine
from ran_deploy.runtime.profiles.layer_time import LayerTime
from ran_deploy.workflows.bench import BenchConfig
from ran_deploy.workflows.evaluation.evaluators import REFERENCE_FILE
from ran_deploy.workflows.profile import Layer, inspected, module_totals, part_totals, profile_bundle

CPU = ("openvino", "onnxruntime")
MODULES = ["stage1.module1", "stage2.module1", "stage3.module1"]


@pytest.fixture(scope="module", params=CPU)
def profile(request, demo):
    pytest.importorskip(request.param)
    config = BenchConfig(
        bundle=demo.bundle, backends=(request.param,), batches=(2,), seconds=0.05, warm_up=2, cache_dir=demo.cache
    )
    (found,) = profile_bundle(config).profiles
    return found


def test_every_convolution_is_in_one_layer_of_its_part(profile, demo):
    bundle = open_bundle(demo.bundle)
    graph = model_from_bytes(bundle.read(bundle.manifest.dialects[profile.backend].graph)).graph
    weighted = product_paths(graph)
    assert len(weighted) == 83  # 82 convolutions and the classifier
    found = [(name, layer) for layer in profile.layers for name in layer.nodes if name in weighted]
    assert Counter(name for name, _ in found) == dict.fromkeys(weighted, 1)
    for name, layer in found:
        assert (layer.part, layer.path) == (part_of(weighted[name]), weighted[name]), layer


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("backend", CPU)
def test_every_convolution_is_in_one_layer_of_float_engines_too(backend, precision, demo):
    pytest.importorskip(backend)
    model = lower(model_from_bytes(open_bundle(demo.bundle).read(REFERENCE_FILE)), backend, precision)
    engine = open_builder(backend).build(model_bytes(model), BuildOptions(precision=precision))
    feeds = {"image": np.zeros((1, 32, 32, 3), np.uint8)}
    layers = profile_engine(backend, Workload(engine=engine, feeds=feeds, runs=1, warm_up=0)).layers
    assert_products_are_attributed(model.graph, layers)


def test_sums_are_those_of_all_layers(profile):
    whole = sum(layer.ms for layer in profile.layers)
    assert profile.layers_ms == pytest.approx(whole)
    assert sum(total.ms for total in profile.parts) == pytest.approx(whole)
    assert sum(total.share for total in profile.parts) == pytest.approx(1)
    assert sum(total.layers for total in profile.parts) == len(profile.layers)
    branches = {Part.TRUNK: "trunk_ms", Part.MASK: "mask_ms", Part.GATE: "gate_ms"}
    for part, field in branches.items():
        total = next(total.ms for total in profile.parts if total.part is part)
        assert sum(getattr(module, field) for module in profile.modules) == pytest.approx(total)


def test_layers_are_as_many_as_the_graph_allows(profile, demo):
    bundle = open_bundle(demo.bundle)
    graph = model_from_bytes(bundle.read(bundle.manifest.dialects[profile.backend].graph)).graph
    assert len(product_paths(graph)) < len(profile.layers) < len(graph)
    assert {layer.part for layer in profile.layers} > {Part.STEM, Part.TRUNK, Part.MASK, Part.GATE, Part.CONVERSIONS}
    named = [layer for layer in profile.layers if layer.nodes]
    assert sum(layer.part is Part.SEVERAL for layer in named) == 0
    assert [total.module for total in profile.modules] == MODULES
    assert (profile.batch, profile.parts_missing) == (2, None)
    assert all(layer.ms >= 0 and layer.kind for layer in profile.layers)


def test_arithmetic_is_that_of_the_design(profile):
    design = ARCHITECTURES["compact-attention"].design
    assert sum(layer.multiply_adds for layer in profile.layers) == cost_of(design, 10, (32, 32)).multiply_adds
    assert sum(total.multiply_adds_share for total in profile.parts) == pytest.approx(1)
    assert next(total for total in profile.parts if total.part is Part.CONVERSIONS).multiply_adds_share == 0


def layer(ms: float, part: Part | None, module: str = "", arithmetic: int = 0) -> Layer:
    return Layer(
        name="n", kind="k", execution="", nodes=(), path="", part=part, module=module, multiply_adds=arithmetic, ms=ms
    )


def test_parts_are_summed_up_the_longest_first_and_modules_in_their_order():
    layers = [layer(1, Part.STEM), layer(2, Part.MASK, "b", 3), layer(4, Part.TRUNK, "b", 1), layer(1, Part.MASK, "a")]
    assert [
        (each.part, each.ms, each.share, each.multiply_adds_share, each.layers) for each in part_totals(layers)
    ] == [
        (Part.TRUNK, 4, 0.5, 0.25, 1),
        (Part.MASK, 3, 0.375, 0.75, 2),
        (Part.STEM, 1, 0.125, 0, 1),
    ]
    assert [(each.module, each.trunk_ms, each.mask_ms, each.gate_ms) for each in module_totals(layers)] == [
        ("b", 4, 2, 0),
        ("a", 0, 1, 0),
    ]
    assert part_totals([layer(1, None)]) == ()
    assert [each.share for each in part_totals([layer(0, Part.STEM)])] == [0]


def test_several_batch_sizes_are_refused(demo):
    config = BenchConfig(bundle=demo.bundle, batches=(1, 4))
    with pytest.raises(ConfigError, match=r"of one batch size; found 1, 4\. Give --batch once"):
        profile_bundle(config)


ENGINE = CachedEngine(data=b"", batch=BatchProfile(minimum=1, optimum=2, maximum=4), required={}, proven=True)
INSPECTED = json.loads((Path(__file__).parents[1] / "vendor_facts" / "inspector_samples.json").read_text())[0]


def reported(name: str) -> LayerTime:
    return LayerTime(name=name, kind="", execution="", origins=(name,), converts=False, ms=0.5)


def test_layers_of_tensorrt_are_described_by_its_inspector(monkeypatch):
    monkeypatch.setattr("ran_deploy.workflows.profile.inspect_engine", lambda *engine: json.dumps(INSPECTED))
    names = ["QuantizeLinear_2", "conv1.weight + QuantizeLinear_7 + Conv_9 + MaxPool_12", "of another profile"]
    quantize, convolution, other = inspected("tensorrt", ENGINE, [reported(name) for name in names])
    assert (quantize.kind, quantize.converts, quantize.origins) == ("Reformat", True, ("QuantizeLinear_2",))
    assert (convolution.kind, convolution.execution, convolution.ms) == ("ConvActPool", "int8", 0.5)
    assert convolution.origins == ("conv1.weight", "QuantizeLinear_7", "Conv_9", "MaxPool_12")
    assert other == reported("of another profile")


def test_layers_of_tensorrt_keep_their_names_where_the_inspector_fails(monkeypatch, caplog):
    monkeypatch.setattr("ran_deploy.workflows.profile.inspect_engine", lambda *engine: "no JSON")
    assert inspected("tensorrt", ENGINE, [reported("a")]) == [reported("a")]
    assert "gave no list of layers" in caplog.text


def test_a_profile_is_not_lost_where_the_inspector_gets_no_weights(monkeypatch, caplog):
    def without_weights(*engine):
        raise EngineMismatchError("tensorrt 10.3.0 cannot give this engine its weights")

    monkeypatch.setattr("ran_deploy.workflows.profile.inspect_engine", without_weights)
    assert inspected("tensorrt", ENGINE, [reported("a")]) == [reported("a")]
    assert "cannot give this engine its weights" in caplog.text
