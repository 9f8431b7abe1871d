from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ran_deploy.converters.builders import BuildOptions, GpuOptions, HardwareLevel, open_builder, trt
from ran_deploy.errors import BackendUnavailableError, BuildError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import unavailable_reason
from ran_deploy.vendors import tensorrt_log

OPTIONS = BuildOptions(precision=Precision.INT8, batch=BatchProfile(minimum=2, optimum=3, maximum=5))


@pytest.fixture(scope="module")
def builder():
    try:
        return open_builder("tensorrt-rtx")
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


def graph_of(nodes, constants=(), image=TensorProto.UINT8, shape=("batch", 9, 14, 3), output=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", image, shape)],
        [helper.make_tensor_value_info("logits", output, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def int8_graph(**options):
    """A quantized convolution in FP16, as the TensorRT dialect has it: s8, zero point 0, FP16 scales."""
    rng = np.random.default_rng(3)
    constants = [
        ("weight", rng.integers(-127, 128, (7, 3, 3, 3)).astype(np.int8)),
        ("weight_scale", np.full(7, 0.01, np.float16)),
        ("weight_zero", np.zeros(7, np.int8)),
        ("scale", np.float16(1.0)),
        ("zero", np.int8(0)),
        ("bias", rng.normal(size=7).astype(np.float16)),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("QuantizeLinear", ["nchw", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["dq", "w", "bias"], ["conv"], name="stem"),
        helper.make_node("GlobalAveragePool", ["conv"], ["pool"]),
        helper.make_node("Cast", ["pool"], ["logits"], to=TensorProto.FLOAT),
    ]
    return graph_of(nodes, constants, **options)


def float_graph():
    """The same convolution in FP16."""
    rng = np.random.default_rng(3)
    constants = [
        ("weight", rng.normal(size=(7, 3, 3, 3)).astype(np.float16)),
        ("bias", rng.normal(size=7).astype(np.float16)),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Transpose", ["half"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weight", "bias"], ["conv"], name="stem"),
        helper.make_node("GlobalAveragePool", ["conv"], ["pool"]),
        helper.make_node("Cast", ["pool"], ["logits"], to=TensorProto.FLOAT),
    ]
    return graph_of(nodes, constants)


def test_an_int8_engine_is_built_without_a_gpu(builder):
    assert len(builder.build(int8_graph(), OPTIONS)) > 10_000  # an engine holds its kernels' code


def test_a_graph_of_one_batch_size_needs_no_profile(builder):
    assert len(builder.build(int8_graph(shape=(2, 9, 14, 3)), OPTIONS)) > 10_000


def test_the_profile_holds_the_batch_sizes_asked_for(builder):
    network = builder._builder.create_network(0)
    builder._parse(network, int8_graph())
    profile = builder._profile(network, OPTIONS.batch)
    assert [tuple(shape) for shape in profile.get_shape("image")] == [(2, 9, 14, 3), (3, 9, 14, 3), (5, 9, 14, 3)]


def test_a_second_profile_holds_the_optimal_batch_alone(builder):
    network = builder._builder.create_network(0)
    builder._parse(network, int8_graph())
    all_batches, optimum = trt._profile_batches(told(optimum_profile=True))
    assert all_batches == OPTIONS.batch
    assert [tuple(shape) for shape in builder._profile(network, optimum).get_shape("image")] == [(3, 9, 14, 3)] * 3
    assert trt._profile_batches(OPTIONS) == (OPTIONS.batch,)
    one_size = BatchProfile(minimum=4, optimum=4, maximum=4)
    static = BuildOptions(precision=Precision.INT8, batch=one_size, gpu=GpuOptions(optimum_profile=True))
    assert trt._profile_batches(static) == (one_size,)


def test_a_second_profile_is_built(builder):
    # TensorRT-RTX 1.7.1: an engine holds the kernels of each profile.
    assert len(builder.build(int8_graph(), told(optimum_profile=True))) > 1.5 * len(
        builder.build(int8_graph(), OPTIONS)
    )


def test_the_profile_takes_effect(builder):
    # Adding a constant of five rows fits a batch of five alone.
    add_five = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float", "five"], ["logits"], name="add_five"),
    ]
    graph = graph_of(add_five, [("five", np.ones((5, 1, 1, 1), np.float32))])
    fits = BuildOptions(precision=Precision.FP32, batch=BatchProfile(minimum=5, optimum=5, maximum=5))
    assert builder.build(graph, fits)
    beyond = BuildOptions(precision=Precision.FP32, batch=BatchProfile(minimum=6, optimum=7, maximum=8))
    with pytest.raises(BuildError) as error:
        builder.build(graph, beyond)
    assert "\n" not in str(error.value)


def told(**choices):
    return BuildOptions(precision=Precision.INT8, batch=OPTIONS.batch, gpu=GpuOptions(**choices))


def test_an_engine_holds_kernels_for_the_gpus_asked_for(builder):
    config = builder._configured(GpuOptions(compute_capabilities=("8.9", "12.0")))
    targets = [config.get_compute_capability(i).name for i in range(config.num_compute_capabilities)]
    assert targets == ["SM89", "SM120"]
    assert len(builder.build(int8_graph(), told(compute_capabilities=("8.9", "12.0")))) > 10_000


@pytest.mark.parametrize("capability", ["5.0", "newest", "89"])
def test_an_unknown_gpu_is_refused_with_those_there_are(builder, capability):
    with pytest.raises(ConfigError, match=rf"no kernels for compute capability {capability}; choose of 7.5, 8.0, 8.6"):
        builder.build(int8_graph(), told(compute_capabilities=("8.9", capability)))


def test_the_builder_is_told_workspace_and_level(builder):
    config = builder._configured(GpuOptions(workspace_bytes=2**25, optimization_level=1))
    assert config.get_memory_pool_limit(builder._trt.MemoryPoolType.WORKSPACE) == 2**25
    assert config.builder_optimization_level == 1
    assert builder._configured(GpuOptions()).builder_optimization_level == 3  # TensorRT's own default


@pytest.mark.parametrize("choices", [{"workspace_bytes": 1000}, {"optimization_level": 6}, {"optimization_level": -1}])
def test_options_out_of_range_are_refused(choices):
    with pytest.raises(ConfigError, match="expected"):
        GpuOptions(**choices)


@pytest.mark.parametrize("choices", [{"hardware": HardwareLevel.AMPERE_PLUS}, {"version_compatible": True}])
def test_tensorrt_rtx_refuses_what_tensorrt_calls_compatible(builder, choices):
    with pytest.raises(ConfigError, match="Leave --hardware-compatible and --version-compatible out") as error:
        builder.build(int8_graph(), told(**choices))
    assert "\n" not in str(error.value)


def test_tensorrt_is_told_how_compatible_an_engine_is_to_be(tensorrt_builder):
    levels, flag = (
        tensorrt_builder._trt.HardwareCompatibilityLevel,
        tensorrt_builder._trt.BuilderFlag.VERSION_COMPATIBLE,
    )
    assert tensorrt_builder._configured(GpuOptions(version_compatible=True)).get_flag(flag)
    assert not tensorrt_builder._configured(GpuOptions()).get_flag(flag)
    for level, expected in (
        (HardwareLevel.AMPERE_PLUS, levels.AMPERE_PLUS),
        (HardwareLevel.SAME_CAPABILITY, levels.SAME_COMPUTE_CAPABILITY),
    ):
        config = SimpleNamespace()  # a stand-in: TensorRT-RTX's own keeps NONE whatever it is set to
        tensorrt_builder._widen(config, GpuOptions(hardware=level))
        assert config.hardware_compatibility_level == expected


def test_a_level_that_this_release_lacks_is_refused_with_those_it_has(tensorrt_builder, monkeypatch):
    # TensorRT 10.3 has no SAME_COMPUTE_CAPABILITY: tests/vendor_facts/tensorrt_names.json
    monkeypatch.setitem(trt.HARDWARE_LEVELS, HardwareLevel.SAME_CAPABILITY, "NOT_YET")
    with pytest.raises(ConfigError, match="does not build for same-capability; it has ampere-plus"):
        tensorrt_builder._configured(GpuOptions(hardware=HardwareLevel.SAME_CAPABILITY))


def test_tensorrt_leaves_weights_out_that_come_back_the_same(tensorrt_builder):
    flags = tensorrt_builder._trt.BuilderFlag
    config = tensorrt_builder._configured(GpuOptions(strip_weights=True))
    assert config.get_flag(flags.STRIP_PLAN)
    assert config.get_flag(flags.REFIT_IDENTICAL)
    assert not config.get_flag(flags.REFIT)  # which may lose a bias in TensorRT 11.3
    assert not tensorrt_builder._configured(GpuOptions()).get_flag(flags.STRIP_PLAN)


def test_tensorrt_rtx_gets_its_weights_with_the_engine(builder):
    with pytest.raises(ConfigError, match="Leave --strip-weights out, or choose --backend tensorrt") as error:
        builder.build(int8_graph(), BuildOptions(precision=Precision.FP16, gpu=GpuOptions(strip_weights=True)))
    assert "\n" not in str(error.value)


def test_its_compiler_wants_a_gpu_for_an_engine_without_weights(tensorrt_builder):
    # Why that is refused. Without a GPU, TensorRT-RTX 1.7.1 says: MyelinCheckException: graph_jit.cpp:278:
    # CHECK(status == CUDA_SUCCESS) failed.
    if unavailable_reason("tensorrt-rtx") is None:
        pytest.skip("a GPU is here")
    tensorrt_builder.timings = None  # they would want one too
    assert tensorrt_builder.build(float_graph(), BuildOptions(precision=Precision.FP16))
    options = BuildOptions(precision=Precision.FP16, gpu=GpuOptions(strip_weights=True))
    with pytest.raises(BuildError, match="CUDA_SUCCESS"):
        tensorrt_builder.build(float_graph(), options)


def test_weights_of_int8_cannot_be_left_out():
    with pytest.raises(ConfigError, match=r"this bundle is int8: .* Leave it out, or export with --precision fp16"):
        BuildOptions(precision=Precision.INT8, gpu=GpuOptions(strip_weights=True))


@pytest.mark.parametrize(
    ("choices", "other"), [({"dla_core": 1}, "--device dla:1"), ({"version_compatible": True}, "--version-compatible")]
)
def test_what_nobody_has_seen_refitted_keeps_its_weights(choices, other):
    with pytest.raises(ConfigError, match=f"--strip-weights does not go with {other}: leave one of them out"):
        BuildOptions(precision=Precision.FP16, gpu=GpuOptions(strip_weights=True, **choices))


def test_an_engine_requires_what_its_build_was_told():
    built_on = {"tensorrt": "10.3.0", "platform": "Linux x86_64", "GPU": "A100", "compute capability": "8.0"}
    anywhere = {"tensorrt": "10.3.0", "platform": "Linux x86_64"}
    assert GpuOptions().required(built_on) == built_on
    same = GpuOptions(hardware=HardwareLevel.SAME_CAPABILITY).required(built_on)
    assert same == {**anywhere, "compute capability": "8.0"}
    wide = GpuOptions(hardware=HardwareLevel.AMPERE_PLUS, version_compatible=True).required(built_on)
    assert wide == {**anywhere, "tensorrt": ">=10.3.0,<11", "compute capability": ">=8.0"}


def test_a_build_tells_how_far_it_is(builder):
    shares = []
    assert builder.build(int8_graph(), OPTIONS, shares.append)
    assert len(shares) > 20
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.5
    assert shares[-1] > 0.8  # TensorRT-RTX 1.7 does not report its last step


def test_an_interrupt_ends_a_build(builder):
    def interrupted(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        builder.build(int8_graph(), OPTIONS, interrupted)
    assert builder.build(int8_graph(), OPTIONS)


def test_the_network_keeps_the_types_of_the_graph(builder):
    network = builder._builder.create_network(trt._network_flags(builder._trt))
    builder._parse(network, int8_graph())
    types = {network.get_layer(i).name: network.get_layer(i).get_output(0).dtype for i in range(network.num_layers)}
    assert types["stem"] == builder._trt.DataType.HALF


def test_an_unsupported_operator_is_named_in_one_line(builder):
    graph = graph_of([helper.make_node("Mystery", ["image"], ["logits"], name="stage2.mask", domain="com.example")])
    with pytest.raises(BuildError, match=r"refuses the graph: node 'stage2.mask' \(Mystery\): INVALID_NODE: ") as error:
        builder.build(graph, OPTIONS)
    assert "\n" not in str(error.value)


def test_an_unsupported_type_is_named_without_the_echo_of_a_missing_gpu(builder):
    transpose = helper.make_node("Transpose", ["image"], ["logits"], name="nchw", perm=[0, 3, 1, 2])
    with pytest.raises(BuildError, match=r"node 'nchw' \(Transpose\): .*has type UInt8") as error:
        builder.build(graph_of([transpose], output=TensorProto.UINT8), OPTIONS)
    assert "CUDA driver" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("graph", [b"", b"hello", int8_graph()[:-40]], ids=["empty", "text", "truncated"])
def test_what_is_no_graph_is_refused_in_one_line(builder, graph):
    with pytest.raises(BuildError) as error:
        builder.build(graph, OPTIONS)
    assert "\n" not in str(error.value)


def test_a_dynamic_height_is_refused(builder):
    with pytest.raises(BuildError, match=r"'image' has shape \(-1, -1, 14, 3\); only the batch may be dynamic"):
        builder.build(int8_graph(shape=("batch", "height", 14, 3)), OPTIONS)


def test_a_builder_builds_again_after_a_refusal(builder):
    with pytest.raises(BuildError):
        builder.build(b"hello", OPTIONS)
    assert builder.build(int8_graph(), OPTIONS)


def test_errors_of_tensorrt_reach_the_log(builder, caplog):
    graph = graph_of([helper.make_node("Mystery", ["image"], ["logits"], name="odd", domain="com.example")])
    with caplog.at_level(logging.INFO, logger="ran_deploy.vendors"), pytest.raises(BuildError):
        builder.build(graph, OPTIONS)
    assert "Mystery" in caplog.text


def test_one_log_serves_the_process(builder):
    assert tensorrt_log(builder.package) is tensorrt_log(builder.package)


def test_tensorrt_without_package_or_gpu_says_so_in_one_line():
    try:
        open_builder("tensorrt")
    except BackendUnavailableError as exc:
        message = str(exc)
    else:
        pytest.skip("tensorrt and a GPU are here")
    assert "tensorrt" in message
    assert "\n" not in message
