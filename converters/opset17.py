"""Write an opset-18 graph in opset 17, the newest that the parser of TensorRT 8.5 and 8.6 reads."""

from __future__ import annotations

import onnx_ir as ir
from onnx import defs

from ran_deploy.converters.graph import array_of
from ran_deploy.errors import ConversionError

__all__ = ["lower_to_opset17"]

OPSET = 17
IR_VERSION = 8  # that of ONNX 1.12, which brought opset 17
# What opset 18 added to Resize, each with the value that means what opset 17 does.
RESIZE_DEFAULTS = {"antialias": 0, "keep_aspect_ratio_policy": "stretch"}


def lower_to_opset17(model: ir.Model) -> None:
    """Rewrite `model` in place, its meaning unchanged.

    Before: ReduceMean(x, axes)                 After: ReduceMean(x), axes as attribute; so for the other reductions
    Before: Resize with attributes of opset 18  After: Resize without, where they say what opset 17 does anyway
    Raises: ConversionError for what opset 17 cannot say.
    """
    opset = model.opset_imports[""]
    for node in model.graph:
        if node.domain == "" and not means_the_same(node, opset):
            rewrite = REWRITES.get(node.op_type)
            if rewrite is None or not rewrite(node):
                raise ConversionError(
                    f"{node.op_type} of {node.outputs[0].name!r} cannot be written in opset {OPSET}, the newest of "
                    "TensorRT 8. Use TensorRT 10 or newer (JetPack 6.1 and later)."
                )
    model.opset_imports[""] = OPSET
    model.graph.opset_imports[""] = OPSET
    model.ir_version = IR_VERSION


def means_the_same(node: ir.Node, opset: int) -> bool:
    """Return whether ONNX has one definition of the operator for opset 17 and `opset`."""
    if not defs.has(node.op_type, OPSET):
        return False
    return len({defs.get_schema(node.op_type, version).since_version for version in (OPSET, opset)}) == 1


def lower_reduction(node: ir.Node) -> bool:
    """Make constant axes an attribute; return whether that is all the node needs."""
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or axes.size == 0:
        return False
    node.resize_inputs(1)
    node.attributes.pop("noop_with_empty_axes", None)
    node.attributes["axes"] = ir.AttrInt64s("axes", axes.tolist())
    return True


def lower_resize(node: ir.Node) -> bool:
    """Drop attributes that opset 17 does not have; return whether none of them asked for anything."""
    if "axes" in node.attributes:
        return False
    for name, default in RESIZE_DEFAULTS.items():
        attribute = node.attributes.pop(name, None)
        if attribute is not None and attribute.value != default:
            return False
    return True


def lower_pad(node: ir.Node) -> bool:
    """Return whether the node is Pad as opset 17 has it: of all axes, in a mode it knows."""
    of_all_axes = len(node.inputs) < 4 or node.inputs[3] is None
    return of_all_axes and node.attributes.get_string("mode", "constant") != "wrap"


def lower_split(node: ir.Node) -> bool:
    """Return whether the node is Split as opset 17 has it: by given sizes, or into equal parts."""
    parts = node.attributes.get("num_outputs")
    source, axis = node.inputs[0], node.attributes.get_int("axis", 0)
    if parts is None:
        return True
    side = source.shape[axis] if source is not None and source.shape is not None else None
    if not isinstance(side, int) or side % parts.as_int():
        return False
    node.attributes.pop("num_outputs")
    return True


REWRITES = {
    "Pad": lower_pad,
    "ReduceL1": lower_reduction,
    "ReduceL2": lower_reduction,
    "ReduceLogSum": lower_reduction,
    "ReduceLogSumExp": lower_reduction,
    "ReduceMax": lower_reduction,
    "ReduceMean": lower_reduction,
    "ReduceMin": lower_reduction,
    "ReduceProd": lower_reduction,
    "ReduceSumSquare": lower_reduction,
    "Resize": lower_resize,
    "Split": lower_split,
}
