"""DLA in a build. What TensorRT answers on a machine that has one is a stand-in's, with lines of its real log."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ran_deploy.converters.builders import BuildOptions, GpuOptions, open_builder
from ran_deploy.converters.builders.trt_dla import DlaLayers, ask_dla, fix_batch, use_dla
from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision

FOUR = BatchProfile(minimum=4, optimum=4, maximum=4)
# https://forums.developer.nvidia.com/t/unable-to-run-resize-layer-on-dla-on-xavier/219158
HALF_PIXEL_ALONE = (
    "{}: For bilinear resize, DLA only supports kHALF_PIXEL coordinate transformation with resize selector: kFORMULA "
    "or kUPPER but kASYMMETRIC with resize selector: kFORMULA was found."
)


def graph() -> bytes:
    """Two Relu around a Resize, float16 (batch, 3, 8, 6)."""
    nodes = [
        helper.make_node("Relu", ["image"], ["positive"], name="first"),
        helper.make_node(
            "Resize",
            ["positive", "", "scales"],
            ["large"],
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
        helper.make_node("Relu", ["large"], ["logits"], name="second"),
    ]
    half = TensorProto.FLOAT16
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", half, ("batch", 3, 8, 6))],
        [helper.make_tensor_value_info("logits", half, None)],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()


def test_every_layer_has_the_one_batch_size_that_dla_takes(tensorrt_builder):
    network = tensorrt_builder._builder.create_network(0)
    tensorrt_builder._parse(network, graph())
    fix_batch(network, 4)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    assert tuple(network.get_input(0).shape) == (4, 3, 8, 6)
    assert tuple(network.get_output(0).shape) == (4, 3, 16, 12)
    assert all(-1 not in tuple(layer.get_output(0).shape) for layer in layers)


def test_tensorrts_own_answer_is_asked_for_each_layer(tensorrt_builder):
    network = tensorrt_builder._builder.create_network(0)
    tensorrt_builder._parse(network, graph())
    fix_batch(network, 4)
    found = ask_dla(network, tensorrt_builder._builder.create_builder_config(), tensorrt_builder._log.take_warnings)
    kinds = Counter(network.get_layer(index).type.name for index in range(network.num_layers))
    del kinds["CONSTANT"]
    assert {each.kind: each.on_gpu for each in found} == kinds  # TensorRT-RTX has no DLA
    assert not any(each.on_dla for each in found)


def test_a_table_of_kinds_says_what_falls_back_and_why():
    layers = [
        SimpleNamespace(name=name, type=SimpleNamespace(name=kind))
        for name, kind in [("conv", "CONVOLUTION"), ("up1", "RESIZE"), ("one", "CONSTANT"), ("up2", "RESIZE")]
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    said = ["of an earlier stage"]

    def can_run_on_dla(layer):
        if layer.type.name == "RESIZE":
            said.append(HALF_PIXEL_ALONE.format(layer.name))
        return layer.type.name != "RESIZE"

    def take_warnings():
        taken = tuple(said)
        said.clear()
        return taken

    assert ask_dla(network, SimpleNamespace(can_run_on_DLA=can_run_on_dla), take_warnings) == (
        DlaLayers(kind="CONVOLUTION", on_dla=1, on_gpu=0, reasons=()),
        DlaLayers(kind="RESIZE", on_dla=0, on_gpu=2, reasons=(HALF_PIXEL_ALONE.format("the layer"),)),
    )


def test_the_build_is_for_the_core_asked_for_with_the_gpu_behind_it(tensorrt_builder):
    flags = []
    config = SimpleNamespace(set_flag=flags.append)  # a stand-in: TensorRT-RTX's own keeps core -1, as it has none
    use_dla(tensorrt_builder._trt, SimpleNamespace(num_DLA_cores=2), config, 1)
    assert config.default_device_type == tensorrt_builder._trt.DeviceType.DLA
    assert config.DLA_core == 1
    assert flags == [tensorrt_builder._trt.BuilderFlag.GPU_FALLBACK]


def test_a_machine_without_dla_is_told_in_one_line(tensorrt_builder):
    with pytest.raises(BackendUnavailableError, match="finds no DLA core here: Jetson Orin has them") as error:
        tensorrt_builder.dla_layers(
            graph(), BuildOptions(precision=Precision.FP16, batch=FOUR, gpu=GpuOptions(dla_core=0))
        )
    assert "\n" not in str(error.value)


def test_a_core_that_is_not_there_is_refused_with_those_that_are(tensorrt_builder):
    with pytest.raises(BackendUnavailableError, match=r"no DLA core dla:2; this device has 2\. Choose of"):
        use_dla(tensorrt_builder._trt, SimpleNamespace(num_DLA_cores=2), SimpleNamespace(), 2)


def test_an_engine_for_dla_requires_it_and_says_no_core():
    required = GpuOptions(dla_core=1).required({"tensorrt": "10.3.0", "GPU": "Orin"})
    assert required == {"tensorrt": "10.3.0", "GPU": "Orin", "accelerator": "DLA"}
    assert GpuOptions(dla_core=1, half_pixel=True).given == ("--device", "--half-pixel")


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP32])
def test_dla_is_for_fp16(precision):
    with pytest.raises(ConfigError, match=f"this bundle is {precision.value}: .* Export it with --precision fp16"):
        BuildOptions(precision=precision, batch=FOUR, gpu=GpuOptions(dla_core=0))


def test_dla_takes_one_batch_size():
    with pytest.raises(
        ConfigError, match=r"DLA takes one batch size, and this build is for 1:8:32\. Add --batch 8:8:8"
    ):
        BuildOptions(precision=Precision.FP16, gpu=GpuOptions(dla_core=0))


def test_half_pixels_are_for_dla_alone():
    with pytest.raises(ConfigError, match="add --device dla:0, or leave it out"):
        BuildOptions(precision=Precision.FP16, gpu=GpuOptions(half_pixel=True))


def test_tensorrt_rtx_knows_no_dla():
    try:
        rtx = open_builder("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))
    with pytest.raises(ConfigError, match=r"knows no DLA\. Leave --device dla:0 out"):
        rtx.build(graph(), BuildOptions(precision=Precision.FP16, batch=FOUR, gpu=GpuOptions(dla_core=0)))
