"""QuantizeLinear / DequantizeLinear pairs on activations: making, finding and changing them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import RANGE, add_constant, insert_after, unused_name
from ran_deploy.errors import CalibrationError

__all__ = [
    "ActivationPair",
    "find_activation_pairs",
    "insert_pair",
    "recorded_range",
    "requantize",
    "scale_from_range",
]


class ActivationPair(NamedTuple):
    """QuantizeLinear and the one DequantizeLinear behind it, on an activation."""

    quantize: ir.Node
    dequantize: ir.Node


def insert_pair(graph: ir.Graph, value: ir.Value, scale: np.float32, zero_point: np.generic) -> ActivationPair:
    """Put one Quantize / Dequantize pair behind `value`; its readers stay as they are."""
    scale_value = add_constant(graph, f"{value.name}_scale", np.asarray(scale))
    point = add_constant(graph, f"{value.name}_zero_point", np.asarray(zero_point))
    quantized = ir.Value(name=unused_name(graph, f"{value.name}_quantized"), shape=value.shape, type=point.type)
    restored = ir.Value(name=unused_name(graph, f"{value.name}_dequantized"), shape=value.shape, type=value.type)
    pair = ActivationPair(
        ir.node("QuantizeLinear", [value, scale_value, point], outputs=[quantized]),
        ir.node("DequantizeLinear", [quantized, scale_value, point], outputs=[restored]),
    )
    pair.quantize.name, pair.dequantize.name = f"{value.name}/QuantizeLinear", f"{value.name}/DequantizeLinear"
    insert_after(value, graph, pair)
    return pair


def find_activation_pairs(graph: ir.Graph) -> list[ActivationPair]:
    """Return the Quantize / Dequantize pairs on activations, in graph order."""
    quantizers = [node for node in graph if node.op_type == "QuantizeLinear" and node.domain == ""]
    return [ActivationPair(node, *node.outputs[0].consumers()) for node in quantizers]


def requantize(graph: ir.Graph, pair: ActivationPair, scale: np.float32, zero_point: np.generic) -> None:
    """Give one pair another scale and zero point, and with the zero point another type."""
    name = pair.quantize.outputs[0].name
    scale_value = add_constant(graph, f"{name}_scale", np.asarray(scale))
    point = add_constant(graph, f"{name}_zero_point", np.asarray(zero_point))
    for node in pair:
        node.replace_input_with(1, scale_value)
        node.replace_input_with(2, point)
    pair.quantize.outputs[0].type = point.type


def recorded_range(value: ir.Value) -> float:
    """Return the calibrated max |x| of a tensor. Raises: CalibrationError if none was recorded."""
    text = value.metadata_props.get(RANGE)
    if text is None:
        raise CalibrationError(f"Tensor {value.name!r} carries no calibrated range. Calibrate and quantise it again.")
    return float(text)


def scale_from_range(limit: float, levels: int) -> np.float32:
    """Return the scale with which `levels` steps reach `limit`: limit / levels, or 1 where limit is 0.

    Never below the smallest normal float32, as engines flush smaller ones to zero and then divide by it.
    """
    if limit == 0:
        return np.float32(1)
    return np.maximum(np.float32(limit / levels), np.finfo(np.float32).tiny)
