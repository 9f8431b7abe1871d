"""The predictor over a real engine: a small graph whose logits can be worked out by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
import sample_manifest
from onnx import TensorProto, helper, numpy_helper

from ran_deploy.errors import ConfigError, RanDeployError, ShapeError
from ran_deploy.manifest import AttentionRecord, BatchProfile, Manifest
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.runtime.backends.ort import OrtRunner
from ran_deploy.runtime.predictor import Predictor

HEIGHT, WIDTH = 4, 6
WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def engine(batch: int | str, *, attention: bool = False) -> bytes:
    """Return a graph: mean over the pixels of each channel (N, 3), times WEIGHTS (3, 5).

    With `attention` it puts out, behind the logits, red pixels (N, H, W) and their means over columns (N, H, 1).
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
    ]
    constants = [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(WEIGHTS, "weights")]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, HEIGHT, WIDTH, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 5])
    outputs = [logits]
    if attention:
        nodes += [
            helper.make_node("Gather", ["real", "red"], ["attention/fine"], axis=3),
            helper.make_node("ReduceMean", ["attention/fine", "columns"], ["attention/coarse"]),
        ]
        constants += [numpy_helper.from_array(np.array(0), "red"), numpy_helper.from_array(np.array([2]), "columns")]
        for name, size in (("fine", [HEIGHT, WIDTH]), ("coarse", [HEIGHT, 1])):
            outputs.append(helper.make_tensor_value_info(f"attention/{name}", TensorProto.FLOAT, [batch, *size]))
    graph = helper.make_graph(nodes, "mean", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.ModelProto.SerializeToString(model)


def manifest(batch: BatchProfile) -> Manifest:
    recipe = Preprocessing(crop=(HEIGHT, WIDTH), resize=8)
    labels = ("a", "b", "c", "d", "e")
    return sample_manifest.manifest(name="mean", output_size=5, labels=labels, preprocessing=recipe, batch=batch)


@pytest.fixture(params=["dynamic", "static"])
def predictor(request):
    if request.param == "dynamic":
        runner, batch = OrtRunner(engine("N"), threads=1), BatchProfile(minimum=1, optimum=2, maximum=3)
    else:
        runner, batch = OrtRunner(engine(3), threads=1), BatchProfile(minimum=3, optimum=3, maximum=3)
    with Predictor(runner, manifest(batch), "onnxruntime") as predictor:
        yield predictor


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 30, (count, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def expected_logits(images, recipe) -> np.ndarray:
    return np.stack([prepare(image, recipe).mean(axis=(0, 1)) @ WEIGHTS for image in images])


@pytest.mark.parametrize("count", [1, 3, 7])
def test_logits_of_images_of_any_sizes_are_those_of_the_graph(predictor, count):
    batch = images(count)
    logits = predictor.logits(batch)
    assert (logits.dtype, logits.shape) == (np.float32, (count, 5))
    np.testing.assert_allclose(logits, expected_logits(batch, predictor.manifest.preprocessing), rtol=1e-5, atol=1e-3)


def test_an_array_of_images_gives_what_the_list_gives(predictor):
    array = np.random.default_rng(2).integers(0, 256, (5, 9, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(predictor.logits(array), predictor.logits(list(array)))


def test_no_images_give_no_logits(predictor):
    assert predictor.logits([]).shape == (0, 5)
    assert predictor.predict([]) == []


def test_infer_batch_splits_prepared_images(predictor):
    prepared = np.stack([predictor.prepare(image) for image in images(8)])
    np.testing.assert_allclose(
        predictor.infer_batch(prepared), prepared.mean(axis=(1, 2)) @ WEIGHTS, rtol=1e-5, atol=1e-3
    )


def test_predict_names_the_likeliest_classes(predictor):
    batch = images(4)
    order = np.argsort(-expected_logits(batch, predictor.manifest.preprocessing), axis=1)[:, :2]
    predictions = predictor.predict(batch, top_k=2)
    assert [[p.index for p in best] for best in predictions] == order.tolist()
    assert predictions[0][0].label == "abcde"[order[0, 0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((9, 9, 3), np.uint8), r"shape \(9, 9, 3\); give an array \(N, H, W, 3\), or a list"),
        ([np.zeros((9, 9, 3), np.float32)], "type float32"),
        ([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8)], r"shape \(9, 9\)"),
        (["cat.png"], r"An image is of type str; a NumPy array, uint8 RGB \(H, W, 3\), is needed"),
        ("cat.png", r"The images are of type str; give a list of images"),
        (3, r"The images are of type int; give a list of images"),
    ],
)
def test_images_of_another_shape_or_type_are_named(predictor, wrong, message):
    with pytest.raises(ShapeError, match=message):
        predictor.logits(wrong)


def test_how_many_classes_is_a_whole_number(predictor):
    with pytest.raises(ConfigError, match=r"top_k is 2\.5; expected a whole number"):
        predictor.predict(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8), top_k=2.5)


def test_prepared_images_of_another_size_are_named(predictor):
    with pytest.raises(ShapeError, match=r"'image' has shape \(3, 5, 6, 3\)"):
        predictor.infer_batch(np.zeros((3, 5, 6, 3), np.uint8))


def test_several_threads_get_their_own_results(predictor):
    batches = [images(1 + i % 4) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(predictor.logits, batches))
    for batch, logits in zip(batches, results, strict=True):
        np.testing.assert_array_equal(logits, predictor.logits(batch))


def test_a_closed_predictor_says_so(predictor):
    predictor.close()
    predictor.close()
    with pytest.raises(RanDeployError, match="closed"):
        predictor.logits(images(1))


@pytest.fixture
def attentive() -> Predictor:
    batch = BatchProfile(minimum=2, optimum=2, maximum=3)
    records = tuple(
        AttentionRecord(name=name, module=name, height=HEIGHT, width=width)
        for name, width in (("fine", WIDTH), ("coarse", 1))
    )
    with Predictor(
        OrtRunner(engine("batch", attention=True)), replace(manifest(batch), attention=records), "onnxruntime"
    ) as predictor:
        yield predictor


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_masks_come_beside_the_same_logits_whatever_the_number_of_images(attentive, rng, count):
    prepared = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    outputs = attentive.infer_outputs(prepared)
    red = prepared[..., 0].astype(np.float32)
    assert list(outputs.attention) == ["fine", "coarse"]
    np.testing.assert_array_equal(outputs.attention["fine"], red)
    np.testing.assert_allclose(outputs.attention["coarse"], red.mean(axis=2, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(outputs.logits, attentive.infer_batch(prepared))


def test_attention_prepares_images_of_any_size(attentive, rng):
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in ((9, 12, 3), (30, 20, 3), (8, 8, 3), (5, 40, 3))]
    expected = np.stack([prepare(image, attentive.manifest.preprocessing) for image in images])[..., 0]
    np.testing.assert_array_equal(attentive.attention(images)["fine"], expected)
    assert {name: masks.shape for name, masks in attentive.attention([]).items()} == {
        "fine": (0, HEIGHT, WIDTH),
        "coarse": (0, HEIGHT, 1),
    }


def test_a_bundle_without_attention_says_how_to_get_it():
    with Predictor(OrtRunner(engine("batch")), manifest(BatchProfile()), "onnxruntime") as predictor:
        assert predictor.infer_outputs(np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)).attention == {}
        with pytest.raises(ConfigError, match=r"mean puts out no attention.*--with-attention"):
            predictor.attention([])
