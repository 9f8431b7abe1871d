import pytest
from onnx import TensorProto, helper

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner, unavailable_reason


def test_an_imported_engine_runs_as_it_was_compiled_unpinned_and_with_the_threads_asked_for():
    reason = unavailable_reason("openvino")
    if reason is not None:
        pytest.skip(reason)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 5])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "graph", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    engine = open_builder("openvino").build(model.SerializeToString(), BuildOptions(precision=Precision.FP32))
    compiled = open_runner("openvino", engine, threads=1)._model
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
