"""Ranges chosen by output error: the same tensor is clipped or not, as the layer that reads it needs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ran_deploy.calibration import CalibrationMethod
from ran_deploy.converters.probe import ProbedReader
from ran_deploy.workflows.exporting.range_choice import best_candidate, chosen_methods, distinct_ranges, output_errors

MINMAX, PERCENTILE, MSE = CalibrationMethod.MINMAX, CalibrationMethod.PERCENTILE, CalibrationMethod.MSE
RANGES = {MINMAX: {"t": 255.0, "y": 40.0}, PERCENTILE: {"t": 7.0, "y": 40.0}, MSE: {"t": 255.0, "y": 30.0}}


@pytest.fixture
def images(rng) -> np.ndarray:
    """Two channels of 0 to 7, a third that is 255 at one pixel in a hundred."""
    images = rng.integers(0, 8, (11, 10, 12, 3), dtype=np.uint8)
    images[..., 2] = np.where(rng.random((11, 10, 12)) < 0.01, 255, 0)
    return images


def one_convolution(weights: list[float]) -> ir.Model:
    """uint8 image -> Cast -> Transpose -> t -> 1x1 Conv with one weight a channel -> y."""
    kernel = np.array(weights, np.float32).reshape(1, 3, 1, 1)
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["cast"], ["t"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["t", "w"], ["y"], name="conv"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 10, 12, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(kernel, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def test_outliers_that_the_layer_does_not_read_are_clipped(images):
    assert chosen_methods(one_convolution([1, -1, 0]), images, RANGES)["t"] is PERCENTILE


def test_outliers_that_the_layer_lives_on_are_kept(images):
    assert chosen_methods(one_convolution([0, 0, 1]), images, RANGES)["t"] is MINMAX


def test_a_tensor_that_no_layer_reads_takes_its_own_least_error(images):
    assert chosen_methods(one_convolution([1, 1, 1]), images, RANGES)["y"] is MSE


def test_progress_counts_the_images(images):
    done: list[int] = []
    chosen_methods(one_convolution([1, 1, 1]), images, RANGES, progress=done.append)
    assert done == [8, 11]


def test_equal_ranges_are_one_candidate_of_the_first_method():
    assert distinct_ranges(RANGES, "t") == {MINMAX: 255.0, PERCENTILE: 7.0}


def test_errors_count_relative_to_each_readers_output():
    readers = [ProbedReader("t", "e0", ("a0", "b0")), ProbedReader("t", "e1", ("a1", "b1"))]
    sums = {"e0": 100.0, "a0": 10.0, "b0": 1.0, "e1": 1.0, "a1": 0.01, "b1": 0.04}
    np.testing.assert_allclose(output_errors(readers, sums)["t"], [0.11, 0.05])


def test_a_reader_that_is_always_zero_counts_nothing():
    readers = [ProbedReader("t", "e0", ("a0", "b0")), ProbedReader("t", "e1", ("a1", "b1"))]
    sums = {"e0": 0.0, "a0": 3.0, "b0": 1.0, "e1": 2.0, "a1": 1.0, "b1": 4.0}
    np.testing.assert_allclose(output_errors(readers, sums)["t"], [0.5, 2.0])


@pytest.mark.parametrize(("errors", "best"), [([4.0, 1.9, 3.0], 1), ([4.0, 2.1, 3.0], 0), ([0.0, 0.0], 0), ([1.0], 0)])
def test_clipping_must_save_half_of_the_error(errors, best):
    assert best_candidate(np.array(errors)) == best
