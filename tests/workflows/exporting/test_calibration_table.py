"""Ranges are taken again for the same graph and images, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from ran_deploy.calibration import CalibrationMethod, table_to_json
from ran_deploy.converters.graph import model_bytes
from ran_deploy.errors import CalibrationError
from ran_deploy.workflows.exporting.calibration_table import read_table
from ran_deploy.workflows.exporting.quantization import CalibrationImages, measured_ranges, quantized, requantized


def convolution(rng: np.random.Generator) -> ir.Model:
    """uint8 image -> Cast -> Transpose -> Conv -> Relu -> Conv -> y."""
    weights = {"w1": rng.standard_normal((4, 3, 3, 3)), "w2": rng.standard_normal((2, 4, 1, 1))}
    nodes = [
        onnx.helper.make_node("Cast", ["image"], ["cast"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Transpose", ["cast"], ["t"], perm=[0, 3, 1, 2]),
        onnx.helper.make_node("Conv", ["t", "w1"], ["c"], name="first"),
        onnx.helper.make_node("Relu", ["c"], ["r"], name="relu"),
        onnx.helper.make_node("Conv", ["r", "w2"], ["y"], name="second"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "test",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 10, 12, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


@pytest.fixture
def images(rng) -> CalibrationImages:
    prepared = rng.integers(0, 256, (33, 10, 12, 3), dtype=np.uint8)
    return CalibrationImages(dataset="noise", prepared=prepared, digests=tuple(f"{i:064x}" for i in range(33)))


@pytest.mark.parametrize("method", CalibrationMethod)
def test_the_table_gives_the_same_graph_and_record_again(rng, images, method, tmp_path):
    model = convolution(rng)
    first = quantized(model, images, method)
    assert [change.images for change in first.record.stability] == [16, 33]
    file = tmp_path / "calibration.json"
    file.write_bytes(table_to_json(first.table))
    again = requantized(model, images, read_table(file))
    assert model_bytes(again.model) == model_bytes(first.model)
    assert again.record == first.record


def test_another_graph_and_other_images_are_refused(rng, images):
    model = convolution(rng)
    table = quantized(model, images, CalibrationMethod.MINMAX).table
    with pytest.raises(CalibrationError, match="another network"):
        requantized(convolution(rng), images, table)
    other = images.prepared.copy()
    other[3, 4, 5, 1] ^= 1  # as another crop or resize of the same files gives
    with pytest.raises(CalibrationError, match="other images"):
        requantized(model, replace(images, prepared=other), table)


@pytest.mark.parametrize("method", CalibrationMethod)
def test_ranges_measured_once_serve_every_method(rng, images, method):
    model = convolution(rng)
    measured = measured_ranges(model, images)
    assert quantized(model, images, method, measured=measured).table == quantized(model, images, method).table


def test_auto_says_how_many_tensors_took_each_method(rng, images):
    record = quantized(convolution(rng), images, CalibrationMethod.AUTO).record
    assert sum(record.chosen.values()) == len(quantized(convolution(rng), images, CalibrationMethod.AUTO).table.ranges)
    assert quantized(convolution(rng), images, CalibrationMethod.MSE).record.chosen == {}


def test_progress_counts_both_passes(rng, images):
    seen: list[tuple[int, int]] = []
    quantized(convolution(rng), images, CalibrationMethod.AUTO, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [8, 16, 24, 32, 33, 41, 49, 57, 65, 66]
    assert {total for _, total in seen} == {66}


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(CalibrationError, match=r"Cannot read the calibration table .*missing\.json: No such file"):
        read_table(tmp_path / "missing.json")
