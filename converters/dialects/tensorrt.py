"""The TensorRT and TensorRT-RTX dialect: s8 as it is, the float rest in FP16, as strong typing runs what is written."""

from __future__ import annotations

import onnx_ir as ir

from ran_deploy.converters.half import lower_to_fp16
from ran_deploy.errors import ConversionError
from ran_deploy.precision import Precision

__all__ = ["find_unsigned", "refuse_unsigned", "tensorrt_graph"]


def tensorrt_graph(model: ir.Model, precision: Precision) -> ir.Model:
    """Return the float32 graph for fp32, else the graph with FP16 wherever it has float32.

    Raises: ConversionError for unsigned quantisation, and where FP16 cannot hold the graph.
    """
    refuse_unsigned(model)
    return model.clone() if precision is Precision.FP32 else lower_to_fp16(model)


def refuse_unsigned(model: ir.Model) -> None:
    """Raise ConversionError if anything is quantised to other than int8.

    TensorRT-RTX 1.7 parses uint8 zero points and builds layers typed INT8 from them, which would clip silently.
    """
    for node, found in find_unsigned(model):
        raise ConversionError(
            f"{node.op_type} of {node.outputs[0].name!r} uses {found or 'uint8'}; TensorRT computes with "
            "int8 alone. Lower the s8 artifact graph, not another dialect."
        )


def find_unsigned(model: ir.Model) -> list[tuple[ir.Node, ir.DataType | None]]:
    """Return the Q/DQ that are not int8, each with its type; one without zero point counts as uint8, ONNX's default."""
    unsigned: list[tuple[ir.Node, ir.DataType | None]] = []
    for node in model.graph:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.domain != "":
            continue
        point = node.inputs[2] if len(node.inputs) > 2 else None
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        typed = stored if point is None else point
        found = None if typed is None else typed.dtype
        if found != ir.DataType.INT8:
            unsigned.append((node, found))
    return unsigned
