"""The demo network, made hard by exact rescaling, through calibration to INT8."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from ran_deploy.bundle import open_bundle
from ran_deploy.calibration import CalibrationMethod
from ran_deploy.converters.equalize import find_equalizable, scale
from ran_deploy.converters.graph import model_bytes, model_from_bytes, require_array
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.verification.metrics import relative_l2
from ran_deploy.workflows.exporting.quantization import calibration_images, equalized, quantized

IMAGES = 16


def logits(model, images):
    return open_reference(model_bytes(model)).infer({"image": images})["logits"]


def test_a_network_made_hard_is_as_good_in_int8_as_it_was_before(demo, rng):
    bundle = open_bundle(demo.bundle)
    hard = model_from_bytes(bundle.read("reference.onnx"))
    images = calibration_images(open_dataset(demo.calibration, Split.TRAIN), IMAGES, bundle.manifest.preprocessing)
    expected = logits(hard, images.prepared)

    def int8_error(graph):
        artifact = quantized(graph, images, CalibrationMethod.MINMAX).model
        return relative_l2(expected, logits(artifact, images.prepared))

    sane = int8_error(hard)
    places = find_equalizable(hard.graph)
    for place in places:
        factors = np.ones(len(require_array(place.producer.inputs[1])))
        factors[rng.permutation(len(factors))[:2]] = 1 / 64
        scale(hard.graph, place, factors)
    cured, record = equalized(hard, images)
    assert len(places) == 80  # all that follow a Relu in this network
    assert record.tensors > 70
    assert 64 <= record.largest_factor <= 1024
    np.testing.assert_array_equal(logits(hard, images.prepared), expected)
    np.testing.assert_array_equal(logits(cured, images.prepared), expected)
    assert int8_error(hard) > 0.3
    assert int8_error(cured) < 1.5 * sane
