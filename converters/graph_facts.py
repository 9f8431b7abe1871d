"""What of a graph decides whether an engine family can take it: read, never changed."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["align_corners_resizes", "fp16_scales", "opset_of"]


def opset_of(model: ir.Model) -> int:
    """Return the version of ONNX's own operators that `model` is written in."""
    return model.opset_imports[""]


def align_corners_resizes(model: ir.Model) -> list[str]:
    """Return the outputs of the linear Resize nodes that align corners."""
    return [
        str(node.outputs[0].name)
        for node in model.graph
        if node.op_type == "Resize"
        and _text(node, "mode") == "linear"
        and _text(node, "coordinate_transformation_mode") == "align_corners"
    ]


def fp16_scales(model: ir.Model) -> int:
    """Return how many Q/DQ have a scale in FP16."""
    return sum(
        node.op_type in ("QuantizeLinear", "DequantizeLinear")
        and (scale := node.inputs[1]) is not None
        and scale.dtype == ir.DataType.FLOAT16
        for node in model.graph
    )


def _text(node: ir.Node, name: str) -> str:
    attribute = node.attributes.get(name)
    return "" if attribute is None else attribute.as_string()
