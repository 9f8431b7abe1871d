from __future__ import annotations

import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.runtime.backends import trt_dla
from ran_deploy.workflows.doctor import BackendState, State, device_report, exit_status, graph_facts


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((State.UNAVAILABLE, State.MADE_ON_LOAD), 0),
        ((State.NO_ENGINE, State.PROVEN), 0),
        ((State.UNPROVEN,), 0),
        ((State.NO_ENGINE, State.UNAVAILABLE), 3),
        ((State.UNAVAILABLE,), 2),
        ((), 2),
    ],
)
def test_the_exit_status_says_whether_anything_would_load(states, status):
    assert exit_status(tuple(BackendState(backend="openvino", state=state) for state in states)) == status


def test_an_exported_engine_is_on_record_as_proven_and_an_empty_cache_is_not(demo, tmp_path):
    bundle = open_bundle(demo.bundle)

    def states(cache):
        return {each.backend: each.state for each in device_report(bundle, cache).backends}

    assert states(demo.cache)["onnxruntime"] is State.PROVEN
    assert states(tmp_path)["onnxruntime"] is State.MADE_ON_LOAD
    assert not list(tmp_path.iterdir())


def test_a_backend_without_engine_comes_with_the_command_that_builds_it(demo, tmp_path, monkeypatch):
    from ran_deploy.workflows import doctor
    from ran_deploy.workflows.engines import loading as engines

    bundle = open_bundle(demo.bundle)
    for module in (doctor, engines):
        monkeypatch.setattr(module, "unavailable_reason", lambda backend: None)
        monkeypatch.setattr(module, "fingerprint", lambda backend: {backend: "99.9"})
    monkeypatch.setattr(trt_dla, "core_count", lambda: 0)
    state = next(each for each in device_report(bundle, tmp_path).backends if each.backend == "tensorrt")
    assert state.state is State.NO_ENGINE
    assert state.next_step == f"ran-build {demo.bundle} --backend tensorrt"


def test_facts_are_those_that_onnx_itself_reads_in_the_graph(demo):
    onnx = pytest.importorskip("onnx")
    bundle = open_bundle(demo.bundle)
    data = bundle.read(bundle.manifest.dialects["tensorrt"].graph)
    model, facts = onnx.load_model_from_string(data), graph_facts(data)
    initializers = {each.name: each.data_type for each in model.graph.initializer}
    scales = [initializers[node.input[1]] for node in model.graph.node if "antizeLinear" in node.op_type]
    assert facts.opset == next(each.version for each in model.opset_import if each.domain == "")
    assert len(facts.align_corners) == sum(node.op_type == "Resize" for node in model.graph.node) > 0
    assert facts.fp16_scales == scales.count(onnx.TensorProto.FLOAT16) > 0
    assert facts.unsigned == ()


def test_an_onnx_runtime_graph_shows_its_unsigned_zero_points(demo):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    node = helper.make_node("QuantizeLinear", ["x", "scale", "point"], ["q"])
    graph = helper.make_graph(
        [node],
        "unsigned",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("q", TensorProto.UINT8, [2])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [1.0]),
            helper.make_tensor("point", TensorProto.UINT8, [], [3]),
        ],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    assert onnx.load_model_from_string(data).opset_import[0].version == graph_facts(data).opset == 18
    assert graph_facts(data).unsigned == ("QuantizeLinear of 'q'",)


def test_without_onnx_the_graph_is_not_read(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ran_deploy.converters.graph", None)
    monkeypatch.setitem(sys.modules, "ran_deploy.converters.graph_facts", None)
    assert graph_facts(b"") is None
