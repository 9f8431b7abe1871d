"""The probe's sums are those of PyTorch's layers on values rounded and clipped by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.helper import make_node
from torch.nn import functional

from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.converters.probe import ProbedReader, probe_graph
from ran_deploy.converters.simplify import run_unoptimised

LIMITS = (4.0, 1.5, 0.5)


@pytest.fixture
def constants(rng):
    return {
        "w1": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((5, 3, 1, 1)).astype(np.float32),
        "b2": rng.standard_normal(5).astype(np.float32),
        "w3": rng.standard_normal((7, 5)).astype(np.float32),
        "b3": rng.standard_normal(7).astype(np.float32),
    }


@pytest.fixture
def model(build, constants):
    """x -> Relu -> two Convs, strided and padded -> Add -> mean -> Gemm."""
    nodes = [
        make_node("Relu", ["x"], ["r"]),
        make_node("Conv", ["r", "w1"], ["c1"], name="first", pads=[1, 1, 1, 1], strides=[2, 1]),
        make_node("Conv", ["r", "w2", "b2"], ["c2"], name="second", strides=[2, 1]),
        make_node("Add", ["c1", "c2"], ["a"]),
        make_node("GlobalAveragePool", ["a"], ["p"]),
        make_node("Flatten", ["p"], ["f"]),
        make_node("Gemm", ["f", "w3", "b3"], ["y"], name="last", transB=1),
    ]
    return build(nodes, {"x": ["batch", 3, 6, 4]}, ["y"], constants)


def rounded(x: np.ndarray, limit: float | np.ndarray) -> torch.Tensor:
    scale = np.asarray(limit, np.float32) / np.float32(127)
    return torch.from_numpy(np.clip(np.rint(x / scale), -128, 127).astype(np.float32) * scale)


def rounded_weight(weight: np.ndarray) -> torch.Tensor:
    return rounded(weight, np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True))


def test_sums_are_those_of_rounded_layers(model, constants, rng):
    x = rng.standard_normal((3, 3, 6, 4)).astype(np.float32)
    probe, readers = probe_graph(model, {"r": LIMITS})
    check(probe)
    names = [value.name for value in probe.graph.outputs]
    sums = dict(zip(names, run_unoptimised(probe, {"x": x}), strict=True))
    layers = [
        lambda data, exact: functional.conv2d(data, exact(constants["w1"]), stride=(2, 1), padding=1),
        lambda data, exact: functional.conv2d(
            data, exact(constants["w2"]), torch.from_numpy(constants["b2"]), stride=(2, 1)
        ),
    ]
    r = np.maximum(x, 0)
    assert [reader.tensor for reader in readers] == ["r", "r"]
    for reader, layer in zip(readers, layers, strict=True):
        output = layer(torch.from_numpy(r), torch.from_numpy)
        assert sums[reader.energy] == pytest.approx(float((output**2).sum()), rel=1e-5)
        for limit, name in zip(LIMITS, reader.errors, strict=True):
            expected = float(((layer(rounded(r, limit), rounded_weight) - output) ** 2).sum())
            assert sums[name] == pytest.approx(expected, rel=1e-3)


def test_linear_layers_are_probed_and_only_what_was_asked_for(model):
    probe, readers = probe_graph(model, {"f": (2.0, 1.0)})
    check(probe)
    assert readers == [ProbedReader("f", "probe/0/energy", ("probe/0/error0", "probe/0/error1"))]


def test_the_model_does_not_change(model):
    before = model_bytes(model)
    probe_graph(model, {"r": LIMITS, "f": LIMITS})
    assert model_bytes(model) == before


def test_no_two_nodes_share_a_name(model):
    probe, _ = probe_graph(model, {"r": LIMITS, "f": LIMITS})
    names = [node.name for node in probe.graph if node.name]
    assert len(set(names)) == len(names)
