"""The dialect of TensorRT 8.5 and 8.6, which JetPack 5 and 6.0 bring: opset 17, float32 wherever it is not int8.

Networks of TensorRT 8 are weakly typed: that FP16 may be used is a flag of its builder, not a type in the graph.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from ran_deploy.converters.dialects.tensorrt import refuse_unsigned
from ran_deploy.converters.graph import add_constant, array_of, require_array
from ran_deploy.converters.opset17 import lower_to_opset17
from ran_deploy.precision import Precision

__all__ = ["tensorrt8_graph"]


def tensorrt8_graph(model: ir.Model, precision: Precision) -> ir.Model:
    """Return the graph in opset 17, int8 weights written as float32 behind QuantizeLinear.

    Raises: ConversionError for unsigned quantisation and for what opset 17 cannot say.
    """
    del precision  # float32 and s8 graphs alike: FP16 is the builder's
    refuse_unsigned(model)
    model = model.clone()
    for node in find_stored_weights(model.graph):
        quantize_in_graph(model.graph, node)
    lower_to_opset17(model)
    common_passes.RemoveUnusedNodesPass()(model)
    return model


def find_stored_weights(graph: ir.Graph) -> list[ir.Node]:
    """Return the DequantizeLinear nodes that read int8 from an initializer."""
    return [node for node in graph if node.op_type == "DequantizeLinear" and array_of(node.inputs[0]) is not None]


def quantize_in_graph(graph: ir.Graph, dequantize: ir.Node) -> None:
    """Store the weights in float32 and let the graph quantise them, as networks with fake quantisation are exported.

    Before: int8 -> DequantizeLinear
    After:  float32 -> QuantizeLinear -> DequantizeLinear

    That is the form TensorRT 8 was made for; int8 constants came to its networks later. The product of an int8 and its
    scale, divided by that scale again, is off by less than 1e-4 and rounds back to it.
    """
    stored, scale = require_array(dequantize.inputs[0]), require_array(dequantize.inputs[1])
    axis, name = dequantize.attributes.get_int("axis", 1), dequantize.outputs[0].name
    by_axis = scale.reshape([-1 if i == axis else 1 for i in range(stored.ndim)]) if scale.ndim else scale
    weights = add_constant(graph, f"{name}_float", stored.astype(np.float32) * by_axis)
    point = dequantize.inputs[2] if len(dequantize.inputs) > 2 else None
    if point is None:
        point = add_constant(graph, f"{name}_zero_point", np.zeros(scale.shape, np.int8))
        dequantize.resize_inputs(3)
        dequantize.replace_input_with(2, point)
    quantize = ir.node("QuantizeLinear", [weights, dequantize.inputs[1], point], {"axis": axis})
    quantize.name = f"{name}/QuantizeLinear"
    quantized = quantize.outputs[0]
    quantized.name, quantized.shape, quantized.type = f"{name}_quantized", ir.Shape(stored.shape), point.type
    graph.insert_before(dequantize, [quantize])
    dequantize.replace_input_with(0, quantized)
