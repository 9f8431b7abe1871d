from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE, model_bytes
from ran_deploy.converters.passes import PASSES
from ran_deploy.converters.passes.run import run_passes
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError

# Every engine's parser takes these; no Shape, Gather, Concat or Identity.
RAN_OPERATORS = {"Conv", "BatchNormalization", "Relu", "Add", "Mul", "Sigmoid", "MaxPool", "Resize"}
RAN_OPERATORS |= {"GlobalAveragePool", "Flatten", "Gemm"}


def test_a_ran_holds_only_plain_operators_after_the_passes(clean, operators):
    assert set(operators(clean)) <= RAN_OPERATORS


def test_all_passes_keep_the_outputs_of_a_ran(exported, clean, rng):
    x = rng.standard_normal((3, 3, 46, 34)).astype(np.float32)
    found, wanted = (run_unoptimised(model, {"image": x})[0] for model in (clean, exported))
    # Only the mean over 7 x 5 positions is computed in another order.
    assert np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted)


def test_every_node_of_a_ran_still_knows_its_module(clean):
    assert all(MODULE in node.metadata_props for node in clean.graph)


def test_a_second_run_rewrites_nothing(clean):
    again, rewrites = run_passes(clean)
    assert set(rewrites) == {apply_pass.__name__ for apply_pass in PASSES}
    assert rewrites.total() == 0
    assert [str(node) for node in again.graph] == [str(node) for node in clean.graph]


def test_the_callers_model_never_changes(exported):
    before = model_bytes(exported)
    run_passes(exported)
    assert model_bytes(exported) == before


def test_a_pass_that_breaks_the_graph_is_found_out(build):
    def rename_operator(model):
        model.graph.node(0).op_type = "NoSuchOperator"
        return 1

    model = build([make_node("Relu", ["x"], ["y"])], {"x": [2, 3]}, ["y"])
    with pytest.raises(ConversionError, match="NoSuchOperator"):
        run_passes(model, [rename_operator])
