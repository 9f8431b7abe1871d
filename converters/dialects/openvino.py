"""The OpenVINO dialect: unsigned where nothing can be negative, and weights no x86 CPU can overflow on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.forked_convolutions import bias_forked_convolutions
from ran_deploy.converters.graph import check
from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.converters.passes.remove_unused import remove_unused
from ran_deploy.converters.qdq import find_activation_pairs, recorded_range, requantize, scale_from_range
from ran_deploy.converters.saturation import fit_weights
from ran_deploy.converters.signs import find_non_negative
from ran_deploy.precision import Precision

__all__ = ["openvino_graph"]

U8_MAX = 255


def openvino_graph(model: ir.Model, precision: Precision) -> ir.Model:
    """Return the float32 graph for fp32, the FP16 graph for fp16; for int8 s8 becomes u8 on non-negative tensors.

    u8 has twice the steps there. The float rest of int8 stays float32: OpenVINO's own precision hint makes it BF16
    where the CPU has that. Weights are fitted to CPUs without VNNI, see `saturation`, and OpenVINO is kept from a fault
    of its own, see `forked_convolutions`.
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
        fit_weights(model.graph)
        bias_forked_convolutions(model.graph)
        remove_unused(model)
        check(model)
    return model
