"""Normalisation as the first nodes of the graph, so that an engine takes images as bytes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import MODULE, add_constant
from ran_deploy.errors import ConversionError
from ran_deploy.preprocessing import Preprocessing

__all__ = ["PROLOGUE", "add_uint8_prologue"]

PROLOGUE = "prologue"  # stands where other nodes have the path of their module


def add_uint8_prologue(model: ir.Model, preprocessing: Preprocessing) -> None:
    """Put (x / 255 - mean) / std in front of `model`, in place; its input becomes uint8 (batch, H, W, 3), name kept.

    Before: image float32 (batch, 3, H, W) -> ...
    After:  image uint8 (batch, H, W, 3) -> Cast -> Transpose -> Mul -> Add -> image_normalized -> ...

    Cast comes before Transpose: NVIDIA's parser rejects a Transpose of uint8.
    Raises: ConversionError if the input is not float32 with 3 channels.
    """
    (image,) = model.graph.inputs
    shape = image.shape
    if image.dtype != ir.DataType.FLOAT or shape is None or len(shape) != 4 or shape[1] != 3:
        raise ConversionError(f"The graph takes {image.dtype} {shape}; expected float32 (batch, 3, height, width).")
    batch, channels, height, width = shape
    scale, shift = normalisation(preprocessing.mean, preprocessing.std)
    graph = model.graph

    pixels = ir.Value(
        name=image.name, type=ir.TensorType(ir.DataType.UINT8), shape=ir.Shape([batch, height, width, channels])
    )
    graph.inputs[0] = pixels
    image.name = f"{pixels.name}_normalized"
    cast = ir.node("Cast", [pixels], {"to": ir.DataType.FLOAT})
    transpose = ir.node("Transpose", cast.outputs, {"perm": [0, 3, 1, 2]})
    scaled = ir.node("Mul", [transpose.outputs[0], add_constant(graph, "pixel_scale", scale)])
    shifted = ir.node("Add", [scaled.outputs[0], add_constant(graph, "pixel_shift", shift)])
    nodes = [cast, transpose, scaled, shifted]
    for node, name in zip(nodes, ("float", "nchw", "scaled", "normalized"), strict=True):
        node.name = f"{PROLOGUE}/{node.op_type}"
        node.metadata_props[MODULE] = PROLOGUE
        node.outputs[0].name = f"{pixels.name}_{name}"
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.outputs[0].shape = ir.Shape([batch, channels, height, width])
    cast.outputs[0].shape = ir.Shape([batch, height, width, channels])
    image.replace_all_uses_with(shifted.outputs[0])
    graph.insert_before(graph.node(0), nodes)


def normalisation(mean: tuple[float, float, float], std: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift, float32 (1, 3, 1, 1), with x * scale + shift = (x / 255 - mean) / std.

    Computed in float64 and rounded once.
    """
    deviation = np.asarray(std, np.float64).reshape(1, 3, 1, 1)
    centre = np.asarray(mean, np.float64).reshape(1, 3, 1, 1)
    return (1 / (255 * deviation)).astype(np.float32), (-centre / deviation).astype(np.float32)
