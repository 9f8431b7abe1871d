from __future__ import annotations

import numpy as np
import onnx
import pytest

from ran_deploy import backends
from ran_deploy.converters.dialects import DIALECTS, lower
from ran_deploy.converters.graph import check, model_bytes, model_from_bytes
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConfigError
from ran_deploy.precision import Precision

# Relative L2 to float32, unoptimised, on 7 random images; measured 0.6e-3 and 0.011 to 0.022.
LIMIT = {Precision.FP32: 0.0, Precision.FP16: 3e-3, Precision.INT8: 0.05}


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("dialect", DIALECTS)
def test_each_dialect_stays_close_to_float_and_changes_no_input(float_graph, artifact, images, dialect, precision):
    model = artifact if precision is Precision.INT8 else float_graph
    before = model_bytes(model)
    lowered = lower(model, dialect, precision)
    check(lowered)
    assert model_bytes(model) == before
    found, wanted = (run_unoptimised(graph, {"image": images})[0] for graph in (lowered, float_graph))
    assert np.linalg.norm(found - wanted) <= LIMIT[precision] * np.linalg.norm(wanted)
    assert found.shape == (7, 5)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stored_artifact_is_all_that_lowering_needs(artifact, dialect):
    stored = model_from_bytes(model_bytes(artifact))
    assert model_bytes(lower(stored, dialect, Precision.INT8)) == model_bytes(lower(artifact, dialect, Precision.INT8))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_lowered_graphs_hold_no_unread_initializers(artifact, dialect):
    graph = onnx.ModelProto.FromString(model_bytes(lower(artifact, dialect, Precision.INT8))).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_the_table_has_every_dialect_of_the_backends():
    assert set(DIALECTS) == set(backends.BACKENDS.values()) | {"tensorrt8"}  # that one is for trtexec alone


def test_an_unknown_dialect_is_refused(float_graph):
    with pytest.raises(ConfigError, match="Unknown dialect 'tvm'; choose one of tensorrt"):
        lower(float_graph, "tvm", Precision.FP32)
