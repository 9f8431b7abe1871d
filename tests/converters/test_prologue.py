from __future__ import annotations

import numpy as np
import pytest
from onnx.helper import make_node

from ran_deploy.converters.graph import MODULE, check
from ran_deploy.converters.prologue import PROLOGUE, add_uint8_prologue
from ran_deploy.converters.simplify import run_unoptimised
from ran_deploy.errors import ConversionError
from ran_deploy.preprocessing import Preprocessing

RECIPE = Preprocessing(crop=(5, 4), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture
def doubled(build):
    return build([make_node("Add", ["image", "image"], ["y"])], {"image": ["batch", 3, 5, 4]}, ["y"])


def test_prologue_normalises_every_byte_value_of_every_channel(doubled, operators):
    add_uint8_prologue(doubled, RECIPE)
    check(doubled)
    images = np.arange(13 * 5 * 4).astype(np.uint8).reshape(13, 5, 4, 1) + np.array([0, 70, 140], np.uint8)
    exact = 2 * (images.astype(np.float64) / 255 - RECIPE.mean) / RECIPE.std
    found = run_unoptimised(doubled, {"image": images})[0]
    # Three float32 roundings, of values up to 5.
    np.testing.assert_allclose(found, exact.transpose(0, 3, 1, 2), atol=2e-6)
    assert operators(doubled)[:2] == ["Cast", "Transpose"]


def test_prologue_takes_bytes_in_the_order_of_decoders(doubled):
    add_uint8_prologue(doubled, RECIPE)
    (image,) = doubled.graph.inputs
    assert image.name == "image"
    assert image.dtype.name == "UINT8"
    assert [str(n) for n in image.shape] == ["batch", "5", "4", "3"]
    assert [node.metadata_props.get(MODULE) for node in doubled.graph] == [PROLOGUE] * 4 + [None]


def test_a_second_prologue_is_refused(doubled):
    add_uint8_prologue(doubled, RECIPE)
    with pytest.raises(ConversionError, match="expected float32"):
        add_uint8_prologue(doubled, RECIPE)


def test_grey_images_are_refused(build):
    model = build([make_node("Relu", ["image"], ["y"])], {"image": ["batch", 1, 5, 4]}, ["y"])
    with pytest.raises(ConversionError, match="expected float32"):
        add_uint8_prologue(model, RECIPE)
