from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from ran_deploy.commands.engine_lines import dla_lines, engine_lines
from ran_deploy.converters.builders.engine_layers import layers_from_inspector
from ran_deploy.converters.builders.trt_dla import DlaLayers

INT8_RESNET = json.loads((Path(__file__).parents[1] / "vendor_facts" / "inspector_samples.json").read_text())[0]
LAYERS = layers_from_inspector(json.dumps(INT8_RESNET))


def test_an_engine_is_told_in_four_lines():
    assert engine_lines(LAYERS) == [
        "layers: 4 kernels, 3 int8, 1 fp32; 3 do the work of several nodes",
        "int8: 3 of 3 convolutions and products",
        "conversions of type or layout: 2 fp32 to int8",
        "in fp32: GlobalAveragePool_294",
    ]


def test_many_names_are_cut_short_and_none_are_left_out():
    many = replace(LAYERS, in_fp32=tuple(f"layer{i}" for i in range(9)))
    assert engine_lines(many)[-1] == "in fp32: layer0, layer1, layer2, layer3, layer4 and 4 more"
    assert engine_lines(replace(LAYERS, in_fp32=(), conversions={}))[-1] == "conversions of type or layout: none"


def test_dla_is_a_table_with_the_first_reason():
    kinds = [
        DlaLayers(kind="CONVOLUTION", on_dla=82, on_gpu=0, reasons=("kept to ourselves: all of them run",)),
        DlaLayers(kind="RESIZE", on_dla=0, on_gpu=4, reasons=("DLA only supports kHALF_PIXEL", "another")),
    ]
    assert dla_lines(kinds) == [
        "DLA takes 82 of 86 layers, the GPU the rest",
        "  CONVOLUTION  DLA  82  GPU   0",
        "  RESIZE       DLA   0  GPU   4  DLA only supports kHALF_PIXEL",
    ]
