"""The last layer's error is that of the logits, which were recorded at export by other code."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.evaluation.evaluators import graph_reference

pytest.importorskip("onnx_ir")
from ran_deploy.workflows.validation.layer_errors import layer_errors


@pytest.fixture(scope="module", params=["tensorrt", "openvino", "onnxruntime"])
def found(request, demo):
    bundle, done = open_bundle(demo.bundle), []
    golden = read_golden(bundle)
    errors = layer_errors(bundle, request.param, golden.inputs[:12], "the golden inputs", lambda *d: done.append(d))
    assert done == [(8, 12), (12, 12)]
    return bundle, golden, errors


def test_the_last_layer_is_as_far_from_fp32_as_the_recorded_logits(found):
    bundle, golden, errors = found
    with graph_reference(bundle) as infer:
        expected = infer(golden.inputs[:12])
    assert errors.layers[-1].tensor == "logits"
    assert errors.layers[-1].relative_l2 == pytest.approx(
        relative_l2(expected, golden.logits[errors.dialect][:12]), rel=1e-3
    )


def test_every_convolution_and_the_classifier_are_there_in_order(found):
    _, _, errors = found
    assert len(errors.layers) == 83
    assert errors.layers[0].name.startswith("stem")
    assert [layer.operator for layer in errors.layers] == ["Conv"] * 82 + ["Gemm"]
    assert {layer.branch for layer in errors.layers} == {"trunk", "mask"}


def test_the_worst_are_the_largest_and_their_inputs_are_counted_whole(found):
    _, _, errors = found
    sizes = sorted((layer.relative_l2 for layer in errors.layers), reverse=True)
    assert [errors.layers[index].relative_l2 for index in errors.worst] == sizes[:10]
    assert len(errors.histograms) == 4
    for histogram in errors.histograms:
        assert sum(histogram.counts) > 0
        assert sum(histogram.counts) % 12 == 0
        used = next(layer.input for layer in errors.layers if layer.input and layer.input.tensor == histogram.tensor)
        assert histogram.end == max(used.largest, used.high)
        assert histogram.limit == used.high
        last = int(np.nonzero(histogram.counts)[0][-1])
        assert last * histogram.end / len(histogram.counts) <= used.largest
