"""On what TensorRT's inspector printed elsewhere: tests/vendor_facts/inspector_samples.json says where."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ran_deploy.converters.builders.engine_layers import layers_from_inspector
from ran_deploy.errors import BuildError

SAMPLES = json.loads((Path(__file__).parents[2] / "vendor_facts" / "inspector_samples.json").read_text())
INT8_RESNET, FIRST_LAYER, NAMES_ONLY, IN_DETAIL = SAMPLES


def summary(sample):
    return layers_from_inspector(json.dumps(sample))


def changed(sample, change):
    """Return the sample with each tensor of each layer as `change` makes it."""
    sample = copy.deepcopy(sample)
    for layer in sample["Layers"]:
        for tensor in (*layer["Inputs"], *layer["Outputs"]):
            change(tensor)
    return sample


def test_an_int8_engine_is_summed_up():
    found = summary(INT8_RESNET)
    assert found.precisions == {"int8": 3, "fp32": 1}
    assert found.conversions == {"fp32 to int8": 2}
    assert found.in_fp32 == ("GlobalAveragePool_294",)
    assert (found.products, found.int8_products) == (3, 3)
    assert found.fused == 3


def test_the_kernels_named_for_int8_are_those_found_in_int8():
    # The tactic's name says which types its kernel multiplies: i8f32_i8i32_f32 reads int8 and accumulates int32.
    tactics = {layer["Name"]: layer.get("TacticName", "") for layer in INT8_RESNET["Layers"]}
    for layer in summary(INT8_RESNET).layers:
        if "_i8" in tactics[layer.name]:
            assert layer.precision == "int8", layer.name
        if "FP32FP32" in tactics[layer.name]:
            assert layer.precision == "fp32", layer.name


def test_a_convolution_that_adds_a_float_branch_is_still_int8():
    layer = next(layer for layer in summary(INT8_RESNET).layers if "Conv_284" in layer.name)
    assert (layer.reads, layer.writes) == (("int8", "fp32"), ("fp32",))
    assert (layer.precision, len(layer.origins)) == ("int8", 5)


def test_layers_that_convert_or_do_nothing_compute_in_no_precision():
    kinds = {layer.kind: layer.computes for layer in summary(INT8_RESNET).layers}
    assert kinds == {
        "Reformat": False,
        "ConvActPool": True,
        "CaskConvolution": True,
        "CaskPooling": True,
        "NoOp": False,
    }


def test_nvidias_documented_layer_is_one_int8_product_of_three_nodes():
    found = summary(IN_DETAIL)
    assert (found.precisions, found.products, found.int8_products, found.fused) == ({"int8": 1}, 1, 1, 1)
    assert len(found.layers[0].origins) == 3


def test_metadata_names_the_nodes_where_the_name_does_not():
    sample = copy.deepcopy(FIRST_LAYER)
    sample["Layers"][0]["Metadata"] = "[ONNX Layer: stem]\x1e[ONNX Layer: relu]\x1f[ONNX Layer: stem]"
    assert len(summary(sample).layers[0].origins) == 2


@pytest.mark.parametrize("key", ["DataType", "Datatype"])
def test_tensorrt_11_splits_the_type_from_the_format(key):
    def split(tensor):
        text = tensor.pop("Format/Datatype")
        tensor |= {"Format": "Row major linear", key: "Int8" if "Int8" in text else "Float"}

    assert summary(changed(INT8_RESNET, split)) == summary(INT8_RESNET)


def test_without_shapes_types_are_known_from_weights_alone():
    found = summary(
        changed(INT8_RESNET, lambda tensor: tensor.update({"Format/Datatype": "N/A due to dynamic shapes"}))
    )
    assert found.precisions == {"int8": 3, "unknown": 1}
    assert found.conversions == {"layout of unknown": 2}
    assert found.in_fp32 == ()


def test_without_detail_there_are_names_alone():
    found = summary(NAMES_ONLY)
    assert found.precisions == {"unknown": 4}
    assert (found.products, found.fused) == (0, 4)


def test_a_kernel_that_only_casts_is_a_conversion():
    sample = copy.deepcopy(FIRST_LAYER)
    layer = sample["Layers"][0]
    layer |= {"Name": "__myl_Cast_myl9_2", "LayerType": "kgen"}
    layer["Inputs"][0]["Format/Datatype"], layer["Outputs"][0]["Format/Datatype"] = "Half", "Float"
    assert summary(sample).conversions == {"fp16 to fp32": 1}
    layer["Name"] = "__myl_CastMul_myl9_2"
    assert summary(sample).precisions == {"fp32": 1}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"Layers": 3}', '{"Layers": [3]}', '{"Layers": [{"Inputs": []}]}']
)
def test_what_is_no_list_of_layers_is_refused_in_one_line(text):
    with pytest.raises(BuildError, match="gave no list of layers") as error:
        layers_from_inspector(text)
    assert "\n" not in str(error.value)
