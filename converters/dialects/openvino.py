"""The OpenVINO dialect: unsigned where nothing can be negative, and weights no x86 CPU can overflow on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of, check, require_array
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.qdq import find_activation_pairs, recorded_range, requantize, scale_from_range
from ran_deploy.converters.signs import find_non_negative
from ran_deploy.precision import Precision

__all__ = ["fit_int16_pairs", "openvino_graph"]

U8_MAX = 255
PAIR_MAX = 127  # 255 * 128 fits into int16; rounding two weights can add 1


def openvino_graph(model: ir.Model, precision: Precision) -> ir.Model:
    """Return the float32 graph for fp32, the FP16 graph for fp16; for int8 s8 becomes u8 on non-negative tensors.

    u8 has twice the steps there. The float rest of int8 stays float32: OpenVINO's own precision hint makes it BF16
    where the CPU has that. Weights are kept from overflowing on CPUs without VNNI: see `fit_int16_pairs`.
    """
    if precision is Precision.FP16:
        return lower_to_fp16(model)
    model = model.clone()
    if precision is Precision.INT8:
        non_negative = find_non_negative(model.graph)
        for pair in find_activation_pairs(model.graph):
            tensor = pair.quantize.inputs[0]
            assert tensor is not None
            if tensor in non_negative:
                requantize(model.graph, pair, scale_from_range(recorded_range(tensor), U8_MAX), np.uint8(0))
        for dequantize in find_quantized_weights(model.graph):
            fit_weights(model.graph, dequantize)
        remove_unused(model)
        check(model)
    return model


def find_quantized_weights(graph: ir.Graph) -> list[ir.Node]:
    """Return the DequantizeLinear nodes of int8 weights."""
    return [
        node
        for node in graph
        if node.op_type == "DequantizeLinear"
        and (stored := array_of(node.inputs[0])) is not None
        and stored.dtype == np.int8
        and stored.ndim > 1
    ]


def fit_weights(graph: ir.Graph, dequantize: ir.Node) -> None:
    """Apply `fit_int16_pairs` to the weights behind one DequantizeLinear."""
    stored, scale = require_array(dequantize.inputs[0]), require_array(dequantize.inputs[1])
    axis = dequantize.attributes.get_int("axis", 1)
    fitted, fitted_scale = fit_int16_pairs(np.moveaxis(stored, axis, 0), scale)
    if np.array_equal(fitted_scale, scale):
        return
    name = dequantize.outputs[0].name
    dequantize.replace_input_with(0, add_constant(graph, f"{name}_fitted", np.moveaxis(fitted, 0, axis)))
    dequantize.replace_input_with(1, add_constant(graph, f"{name}_fitted_scale", fitted_scale))


def fit_int16_pairs(stored: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and scales with which u8 times s8 fits into int16 for each pair of input channels.

    Without VNNI, x86 adds the products of two neighbouring input channels in a saturating int16 (VPMADDUBSW). So where
    255 (w[2k] + w[2k + 1]) may leave int16 the output channel gets a larger scale. Halving all weights does the same
    for a whole bit; this costs most channels little.

    Shapes: stored (O, I, ...), scale (O,). Source: Intel 64 and IA-32 manual, volume 2, PMADDUBSW.
    """
    wide = stored.astype(np.float64)
    wide = np.concatenate([wide, np.zeros_like(wide[:, : wide.shape[1] % 2])], axis=1)
    reach = [np.maximum(sign * wide, 0) for sign in (1, -1)]
    sums = np.stack([part[:, 0::2] + part[:, 1::2] for part in reach])
    worst = sums.max(axis=(0, *range(2, sums.ndim)))
    growth = np.maximum(worst / PAIR_MAX, 1)
    fitted_scale = (scale * growth).astype(np.float32)
    ratio = (scale / fitted_scale).reshape(-1, *[1] * (stored.ndim - 1))
    return np.rint(stored * ratio).astype(np.int8), fitted_scale
