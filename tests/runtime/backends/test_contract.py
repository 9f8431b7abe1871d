"""What every runner must do, whatever the vendor: one suite over the table of runners."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.engine.requirements import misfits
from ran_deploy.errors import BackendUnavailableError, EngineMismatchError, RanDeployError, ShapeError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import RUNNERS, fingerprint, open_runner, unavailable_reason
from ran_deploy.runtime.runner import TensorSpec, infer_checked

HEIGHT, WIDTH, CLASSES = 9, 14, 5
OPTIONS = BuildOptions(precision=Precision.FP32, batch=BatchProfile(minimum=1, optimum=3, maximum=7))
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # FP32 sums of at most 35 products, reordered; TF32 is off in typed networks


@functools.cache
def tiny_model() -> onnx.ModelProto:
    """uint8 NHWC image -> cast, NCHW, scale, strided convolution, ReLU, mean, linear -> logits; dynamic batch."""
    rng = np.random.default_rng(7)
    constants = {
        "weight": rng.normal(0, 0.2, (7, 3, 3, 3)).astype(np.float32),
        "bias": rng.normal(0, 1, 7).astype(np.float32),
        "linear": rng.normal(0, 1, (CLASSES, 7)).astype(np.float32),
        "scale": np.float32(1 / 255),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["nchw", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "weight", "bias"], ["conv"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "linear"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)


def expected_logits(image: np.ndarray) -> np.ndarray:
    return ReferenceEvaluator(tiny_model()).run(None, {"image": image})[0]


@functools.cache
def engine_of(backend: str) -> bytes:
    return open_builder(backend).build(tiny_model().SerializeToString(), OPTIONS)


@pytest.fixture(params=RUNNERS)
def backend(request):
    reason = unavailable_reason(request.param)
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def runner(backend):
    runner = open_runner(backend, engine_of(backend), threads=1)
    yield runner
    runner.close()


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_logits_are_those_of_the_reference_evaluator(runner, batch):
    logits = runner.infer({"image": images(batch)})["logits"]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected_logits(images(batch)), **TOLERANCE)


def test_inputs_and_outputs_are_those_of_the_graph(runner):
    assert runner.inputs == (TensorSpec(name="image", dtype="uint8", shape=(None, HEIGHT, WIDTH, 3)),)
    assert runner.outputs == (TensorSpec(name="logits", dtype="float32", shape=(None, CLASSES)),)


def test_outputs_stay_valid_after_the_next_call_and_after_close(runner):
    logits = runner.infer({"image": images(3)})["logits"]
    runner.infer({"image": images(3, seed=1)})
    runner.close()
    np.testing.assert_allclose(logits, expected_logits(images(3)), **TOLERANCE)


def test_strided_and_read_only_inputs_give_the_same_logits(runner):
    frozen = images(4)
    frozen.flags.writeable = False
    strided = frozen[::-1, :, ::-1]
    np.testing.assert_allclose(runner.infer({"image": frozen})["logits"], expected_logits(frozen), **TOLERANCE)
    np.testing.assert_allclose(runner.infer({"image": strided})["logits"], expected_logits(strided), **TOLERANCE)


def test_threads_get_their_own_logits(runner):
    batches = [images(1 + seed % 7, seed) for seed in range(64)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image: runner.infer({"image": image})["logits"], batches))
    for image, logits in zip(batches, results, strict=True):
        np.testing.assert_allclose(logits, expected_logits(image), **TOLERANCE)


def test_infer_checked_passes_on_a_good_batch(runner):
    np.testing.assert_allclose(
        infer_checked(runner, {"image": images(2)})["logits"], expected_logits(images(2)), **TOLERANCE
    )


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"picture": images(2)}, r"Input 'image' is missing; found 'picture'"),
        ({"image": images(2).astype(np.float32)}, r"Input 'image' has type float32; this engine accepts uint8"),
        ({"image": images(2)[:, :-1]}, r"has shape \(2, 8, 14, 3\); this engine accepts \(N, 9, 14, 3\)"),
        ({"image": images(2)[0]}, r"has shape \(9, 14, 3\); this engine accepts \(N, 9, 14, 3\)"),
        ({"image": images(2)[:0]}, r"has shape \(0, 9, 14, 3\)"),
    ],
)
def test_infer_checked_names_the_bad_input(runner, feeds, message):
    with pytest.raises(ShapeError, match=message):
        infer_checked(runner, feeds)


def test_a_shape_that_passes_unchecked_is_still_an_error_in_one_line(runner):
    with pytest.raises(RanDeployError) as error:
        runner.infer({"image": images(2)[:, :, :-1]})
    assert "\n" not in str(error.value)
    np.testing.assert_allclose(runner.infer({"image": images(2)})["logits"], expected_logits(images(2)), **TOLERANCE)


DAMAGE = {
    "truncated": lambda engine: engine[: len(engine) // 2],
    "flipped": lambda engine: bytes([engine[0] ^ 0xFF]) + engine[1:],
    "empty": lambda engine: b"",
    "text": lambda engine: b"not an engine\n" * 100,
    "zeros": lambda engine: bytes(len(engine)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_engine_is_refused_in_one_line_and_nothing_is_printed(backend, damage, capfd):
    engine = DAMAGE[damage](engine_of(backend))
    capfd.readouterr()
    with pytest.raises(EngineMismatchError) as error:
        open_runner(backend, engine)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("other", ["openvino", "onnxruntime", "tensorrt-rtx"])
def test_an_engine_of_another_backend_is_refused(backend, other):
    if other == backend:
        pytest.skip("its own engine")
    try:
        engine = engine_of(other)
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))
    with pytest.raises(EngineMismatchError) as error:
        open_runner(backend, engine)
    assert "\n" not in str(error.value)


def test_closing_twice_is_harmless_and_a_closed_runner_says_so(runner):
    runner.close()
    runner.close()
    with pytest.raises(RanDeployError, match="closed"):
        runner.infer({"image": images(1)})


def test_an_engine_fits_the_machine_that_built_it(backend):
    parts = fingerprint(backend)
    assert len(parts) >= 2
    assert all(isinstance(value, str) and value for value in parts.values())
    assert misfits(parts, fingerprint(backend)) == []
