from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE
from ran_deploy.converters.passes.pool_spatial_mean import pool_spatial_mean
from ran_deploy.converters.passes.run import run_passes


def mean_over(build, axes, keepdims, shape=("batch", 5, 6, 7)):
    node = make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)
    return build([node], {"x": shape}, ["y"], {"axes": np.array(axes, np.int64)})


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, -2]])
@pytest.mark.parametrize(("keepdims", "expected"), [(0, ["GlobalAveragePool", "Flatten"]), (1, ["GlobalAveragePool"])])
def test_pool_spatial_mean_rewrites_and_keeps_outputs(build, operators, evaluate, rng, axes, keepdims, expected):
    model = mean_over(build, axes, keepdims)
    model.graph.node(0).metadata_props[MODULE] = "head"
    pooled, rewrites = run_passes(model, [pool_spatial_mean])
    x = rng.standard_normal((3, 5, 6, 7)).astype(np.float32)
    assert rewrites["pool_spatial_mean"] == 1
    assert operators(pooled) == expected
    assert {node.metadata_props[MODULE] for node in pooled.graph} == {"head"}
    wanted = x.mean((2, 3), dtype=np.float64, keepdims=bool(keepdims))
    np.testing.assert_allclose(evaluate(pooled, {"x": x})[0], wanted, atol=1e-6)
    assert pool_spatial_mean(pooled) == 0


@pytest.mark.parametrize("axes", [[1, 2], [2], [1, 2, 3]])
def test_pool_spatial_mean_declines_other_axes(build, axes):
    assert pool_spatial_mean(mean_over(build, axes, 0)) == 0


def test_pool_spatial_mean_declines_tensors_of_other_rank(build):
    assert pool_spatial_mean(mean_over(build, [2, 3], 0, (2, 3, 4, 5, 6))) == 0


def test_pool_spatial_mean_declines_axes_that_are_an_input(build):
    model = mean_over(build, [2, 3], 0)
    model.graph.inputs.append(model.graph.initializers["axes"])
    assert pool_spatial_mean(model) == 0
