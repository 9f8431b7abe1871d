"""Engines without weights, on the stand-ins of tests/stand_ins."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from stand_in_tensorrt import engine_bytes, row_sums

from ran_deploy.engine.traits import EngineTraits
from ran_deploy.errors import EngineMismatchError
from ran_deploy.runtime.backends import open_runner

PROFILE = [(1, 4, 9)]


def graph_of(**weights: float) -> bytes:
    """Return a graph that adds all `weights` to its input."""
    names = ["image", *(f"sum{index}" for index in range(len(weights)))]
    nodes = [helper.make_node("Add", [names[i], name], [names[i + 1]]) for i, name in enumerate(weights)]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, (2,))],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, (2,))],
        [numpy_helper.from_array(np.full(2, value, np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)]).SerializeToString()


GRAPH = graph_of(weight=1.0, bias=2.0)


def outputs(refit_from: bytes | None, built_from: bytes | None = GRAPH) -> tuple[np.ndarray, np.ndarray]:
    """Return what an engine without the weights of `built_from` computes with those of `refit_from`, and the truth."""
    traits = EngineTraits(refit_from=refit_from)
    runner = open_runner("tensorrt", engine_bytes(PROFILE, stripped=built_from), traits=traits)
    try:
        images = np.random.default_rng(5).integers(0, 256, (3, 9, 14, 3), dtype=np.uint8)
        for _ in range(4):  # the graph too
            found = runner.infer({"image": images})["logits"]
        return found, row_sums(images)
    finally:
        runner.close()


def test_an_engine_without_weights_computes_with_those_of_its_graph(stand_in):
    gpu = stand_in()
    found, expected = outputs(GRAPH)
    np.testing.assert_array_equal(found, expected)
    assert gpu.calls["refit_cuda_engine"] == 1


def test_the_weights_of_another_training_give_other_outputs(stand_in):
    stand_in()
    found, _ = outputs(graph_of(weight=1.0, bias=3.0))
    assert np.isnan(found).all()  # what it is: undefined, so the caller compares digests and runs the self-test


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (graph_of(weight=1.0), "the graph lacks 1 of them, first 'bias'"),
        (graph_of(other=1.0), "the graph lacks 2 of them, first 'weight'"),
        (b"no graph", "the graph lacks 2 of them"),
    ],
)
def test_what_the_graph_lacks_is_told_in_one_line_and_nothing_stays_behind(stand_in, graph, reason):
    gpu = stand_in()
    with pytest.raises(EngineMismatchError, match=reason) as error:
        outputs(graph)
    assert "Build it again on this machine with ran-build" in str(error.value)
    assert "\n" not in str(error.value)
    assert gpu.live() == {}


def test_a_graph_that_cannot_be_read_is_told_though_nothing_is_missing(stand_in):
    stand_in()
    with pytest.raises(EngineMismatchError, match="MODEL_DESERIALIZE_FAILED: Failed to parse the ONNX model"):
        outputs(b"no graph", built_from=graph_of())


def test_a_gpu_that_fails_meanwhile_is_told(stand_in):
    stand_in().fail("refit_cuda_engine", "MemoryAllocation")
    with pytest.raises(EngineMismatchError, match=r"cannot refit: .*MemoryAllocation"):
        outputs(GRAPH)


def test_an_engine_with_its_own_weights_takes_no_others(stand_in):
    stand_in()
    with pytest.raises(EngineMismatchError, match="cannot give this engine its weights: the engine is not refittable"):
        outputs(GRAPH, built_from=None)


def test_the_stand_in_sees_an_engine_that_runs_without_weights(stand_in):
    gpu = stand_in()
    outputs(None)
    assert set(gpu.faults) == {"a context was made of an engine without weights"}
    gpu.faults.clear()
