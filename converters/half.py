"""Lower the float part of a graph to FP16, Q/DQ scales included; what int8 holds stays int8."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes
from onnx import defs

from ran_deploy.converters.graph import (
    ATTENTION,
    RANGE,
    add_constant,
    array_of,
    check,
    insert_after,
    module_of,
    require_array,
    unused_name,
)
from ran_deploy.converters.norms import find_norm_arithmetic
from ran_deploy.converters.prologue import PROLOGUE
from ran_deploy.converters.quantize import quantize
from ran_deploy.errors import ConversionError

__all__ = ["lower_to_fp16"]

FP16_MAX = 65504.0
FP16_SMALLEST_NORMAL = 2.0**-14  # below, precision fades and GPUs may flush to zero
QDQ = ("QuantizeLinear", "DequantizeLinear")
QDQ_OPSET = 19  # the first whose QuantizeLinear takes FP16 scales
# Operators whose definition changed between opsets 18 and 19 only by what they additionally accept.
EXTENDED_IN_19 = frozenset(
    {
        "AveragePool",
        "Cast",
        "CastLike",
        "Constant",
        "DequantizeLinear",
        "Equal",
        "Identity",
        "Pad",
        "QuantizeLinear",
        "Reshape",
        "Resize",
        "Shape",
        "Size",
    }
)


def lower_to_fp16(model: ir.Model) -> ir.Model:
    """Return a copy of a float32 graph, or of an s8 Q/DQ graph with a float32 rest, with FP16 in place of float32.

    Inputs and outputs keep their types. The prologue's pixel arithmetic, divisions by a norm and the means of masks
    (sums of up to thousands of channels) stay float32, as do Resize scales, which ONNX defines as float32.
    BatchNormalization gets mean 0 and variance 1, as small variances are lost in FP16. A graph with Q/DQ becomes
    opset 19.
    Raises: ConversionError for weights or calibrated ranges beyond 65504, and for operators not known in opset 19.
    """
    refuse_wide_ranges(model.graph)
    model = model.clone()
    graph = model.graph
    kept = find_kept_nodes(graph)
    for node in list(graph):
        if node not in kept:
            lower_parameters(graph, node)
    halve_activations(graph, kept)
    common_passes.RemoveUnusedNodesPass()(model)
    if any(node.op_type in QDQ for node in graph):
        raise_opset(model)
    check(model)
    return model


def refuse_wide_ranges(graph: ir.Graph) -> None:
    """Raise ConversionError if calibration saw values that FP16 does not have."""
    for node in graph:
        for output in node.outputs:
            limit = float(output.metadata_props.get(RANGE, "0"))
            if limit > FP16_MAX:
                raise ConversionError(
                    f"Tensor {output.name!r} reaches {limit:.3g}; FP16 ends at {FP16_MAX:.0f}. Use --precision fp32."
                )


def find_kept_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes that go on computing in float32."""
    named = {node for node in graph if module_of(node) in (PROLOGUE, ATTENTION) or is_float_by_attribute(node)}
    return named | find_norm_arithmetic(graph)


def is_float_by_attribute(node: ir.Node) -> bool:
    """Return whether float32 comes out of the node and none goes in, as with ConstantOfShape; of Cast we write it."""
    read, made = ([v.dtype for v in values if v is not None] for values in (node.inputs, node.outputs))
    return node.op_type != "Cast" and ir.DataType.FLOAT in made and ir.DataType.FLOAT not in read


def lower_parameters(graph: ir.Graph, node: ir.Node) -> None:
    """Give one node FP16 constants and, for Cast, an FP16 target."""
    if node.op_type == "BatchNormalization":
        set_unit_variance(graph, node)
    elif node.op_type == "DequantizeLinear" and array_of(node.inputs[0]) is not None:
        raise_weight_scales(graph, node)
    elif node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
    for i, value in enumerate(node.inputs):
        array = array_of(value)
        if value is None or array is None or array.dtype != np.float32 or keeps_float32(node, i):
            continue
        if node.op_type in QDQ:
            array = np.maximum(array, np.float32(FP16_SMALLEST_NORMAL))
        elif node.op_type == "Clip" and i > 0:  # a bound that FP16 cannot reach bounds nothing
            array = np.clip(array, np.float32(-FP16_MAX), np.float32(FP16_MAX))
        node.replace_input_with(i, half_constant(graph, value, array))


def keeps_float32(node: ir.Node, index: int) -> bool:
    """Return whether ONNX wants float32 at this input whatever the data's type is."""
    return node.op_type == "Resize" and index == 2


def half_constant(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> ir.Value:
    """Return `array`, which is `value` fitted to its use, as an FP16 initializer: the earlier one if it is equal."""
    largest = float(np.abs(array).max(initial=0))
    if not largest <= FP16_MAX:
        raise ConversionError(
            f"Weight {value.name!r} reaches {largest:.3g}; FP16 ends at {FP16_MAX:.0f}. Use --precision fp32."
        )
    name, half = f"{value.name}_fp16", array.astype(np.float16)
    earlier = graph.initializers.get(name)
    if earlier is not None and earlier.dtype == ir.DataType.FLOAT16 and np.array_equal(require_array(earlier), half):
        return earlier
    return add_constant(graph, name, half)


def set_unit_variance(graph: ir.Graph, node: ir.Node) -> None:
    """Write a BatchNormalization as gamma' * x + beta': mean 0, variance 1, epsilon 0."""
    arrays = [array_of(value) for value in node.inputs[1:5]]
    if any(array is None for array in arrays):
        return
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = gamma / np.sqrt(variance + epsilon)
    zeros, ones = np.zeros(factor.shape, np.float32), np.ones(factor.shape, np.float32)
    values = (factor.astype(np.float32), (beta - mean * factor).astype(np.float32), zeros, ones)
    for i, (suffix, array) in enumerate(zip(("factor", "shift", "mean", "variance"), values, strict=True), start=1):
        node.replace_input_with(i, add_constant(graph, f"{node.outputs[0].name}_{suffix}", array))
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.0)


def raise_weight_scales(graph: ir.Graph, node: ir.Node) -> None:
    """Quantise anew the int8 weights of channels whose scale FP16 holds only as a subnormal number.

    Their weights move by at most 2**-15; clamping the scale alone would make them larger.
    """
    stored, scale = require_array(node.inputs[0]), require_array(node.inputs[1])
    raised = np.maximum(scale, np.float32(FP16_SMALLEST_NORMAL))
    if np.array_equal(raised, scale):
        return
    axis = node.attributes.get_int("axis", 1)
    weights = stored.astype(np.float64) * scale.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
    name = node.outputs[0].name
    node.replace_input_with(0, add_constant(graph, f"{name}_raised", quantize(weights, raised, axis)))
    node.replace_input_with(1, add_constant(graph, f"{name}_raised_scale", raised))


def halve_activations(graph: ir.Graph, kept: Collection[ir.Node]) -> None:
    """Make the float32 tensors of all but the `kept` nodes FP16, with a Cast wherever the type changes."""
    casts: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        wanted = ir.DataType.FLOAT if node in kept else ir.DataType.FLOAT16
        for i, value in float_inputs(node):
            if value.dtype != wanted:
                if value not in casts:
                    casts[value] = cast_behind(graph, value, wanted)
                node.replace_input_with(i, casts[value])
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(wanted)
    for i, output in enumerate(graph.outputs):
        if output.dtype == ir.DataType.FLOAT16:
            graph.outputs[i] = cast_to_float(graph, output)


def float_inputs(node: ir.Node) -> Iterator[tuple[int, ir.Value]]:
    """Yield index and tensor of the floating-point activations a node reads."""
    for i, value in enumerate(node.inputs):
        if value is not None and not value.is_initializer() and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            yield i, value


def cast_behind(graph: ir.Graph, value: ir.Value, dtype: ir.DataType) -> ir.Value:
    """Put a Cast behind `value` and return its output."""
    suffix = "fp16" if dtype == ir.DataType.FLOAT16 else "fp32"
    cast = ir.Value(name=unused_name(graph, f"{value.name}_{suffix}"), shape=value.shape, type=ir.TensorType(dtype))
    insert_after(value, graph, [ir.node("Cast", [value], {"to": dtype}, outputs=[cast], name=f"{cast.name}/Cast")])
    return cast


def cast_to_float(graph: ir.Graph, output: ir.Value) -> ir.Value:
    """Put a Cast to float32 behind a graph output and return its output, which takes over the name."""
    name = output.name
    output.name = unused_name(graph, f"{name}_fp16")
    full = ir.Value(name=name, shape=output.shape, type=ir.TensorType(ir.DataType.FLOAT))
    insert_after(
        output, graph, [ir.node("Cast", [output], {"to": ir.DataType.FLOAT}, outputs=[full], name=f"{name}/Cast")]
    )
    return full


def raise_opset(model: ir.Model) -> None:
    """Declare opset 19. Raises: ConversionError if an operator is not known to mean the same there."""
    unknown = sorted({node.op_type for node in model.graph if not means_the_same(node, model.opset_imports[""])})
    if unknown:
        raise ConversionError(
            f"The graph has {', '.join(unknown)}, not known to mean the same in opset {QDQ_OPSET}. Use --precision "
            "fp32 or int8 for another backend."
        )
    model.opset_imports[""] = max(QDQ_OPSET, model.opset_imports[""])
    model.graph.opset_imports[""] = model.opset_imports[""]


def means_the_same(node: ir.Node, opset: int) -> bool:
    """Return whether ONNX defines the operator alike in `opset` and opset 19, but for further types and attributes."""
    if node.domain != "" or not defs.has(node.op_type):
        return False
    since = {defs.get_schema(node.op_type, version).since_version for version in (opset, QDQ_OPSET)}
    return node.op_type in EXTENDED_IN_19 or len(since) == 1
