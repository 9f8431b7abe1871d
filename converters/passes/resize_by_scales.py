"""Give every Resize constant scales, which frees the graph of the Shape chains that compute its sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant


@dataclass(frozen=True)
class Resizing:
    """A Resize by sizes, and what its four scales become."""

    node: ir.Node
    scales: np.ndarray


def resize_by_scales(model: ir.Model) -> int:
    """Replace the sizes of every 4-D Resize whose height and width are static by scales of the same effect.

    Before: Shape -> Concat with (h, w) -> Resize(x, sizes)      dynamic, as the batch is part of the sizes
    After:  Resize(x, scales=(1, 1, sh, sw))                     Shape and Concat are left for remove_unused

    NVIDIA's parser rejects Resize with `axes`, other parsers sizes of 0, and plain quotients b / a come out one pixel
    short at 26 -> 53 and elsewhere.
    """
    resizings = find_resizes_by_sizes(model.graph)
    for resizing in resizings:
        node = resizing.node
        scales = add_constant(model.graph, f"{node.outputs[0].name}_scales", resizing.scales)
        node.resize_inputs(3)
        node.replace_input_with(1, None)
        node.replace_input_with(2, scales)
        node.attributes.pop("axes", None)
    return len(resizings)


def find_resizes_by_sizes(graph: ir.Graph) -> list[Resizing]:
    """Return the Resize nodes that can be written with constant scales without a change of their outputs."""
    found = []
    for node in graph:
        scales = constant_scales(node) if node.op_type == "Resize" and node.domain == "" else None
        if scales is not None:
            found.append(Resizing(node, scales))
    return found


def constant_scales(node: ir.Node) -> np.ndarray | None:
    """Return float32 scales (4,) of equal effect, or None where sizes are not used, not static or not reproducible."""
    if len(node.inputs) < 4 or node.inputs[3] is None or node.inputs[0] is None:
        return None
    source, target = static_height_width(node.inputs[0]), static_height_width(node.outputs[0])
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if source is None or target is None or policy != "stretch" or mode == "tf_crop_and_resize":
        return None
    pairs = list(zip(source, target, strict=True))
    exact = all(float(np.float32(b / a)) == b / a for a, b in pairs)
    if mode == "align_corners":  # sample points follow from the two sizes alone
        scales = [aligned_scale(a, b) for a, b in pairs]
    elif node.attributes.get_string("mode", "nearest") == "nearest" and not exact:
        return None  # a rounded scale can pick the neighbour
    else:
        scales = [rounded_up(b / a) for a, b in pairs]
    assert all(int(np.floor(np.float32(a) * s)) == b for (a, b), s in zip(pairs, scales, strict=True)), (pairs, scales)
    return np.array([1, 1, *scales], np.float32)


def aligned_scale(source: int, target: int) -> np.float32:
    """Return a scale from the middle of those that make `target` of `source`, so that no rounding can leave them."""
    return np.float32((target + 0.5) / source)


def rounded_up(quotient: float) -> np.float32:
    """Return the smallest float32 not below `quotient`, so that size times scale never falls short."""
    nearest = np.float32(quotient)
    return nearest if float(nearest) >= quotient else np.nextafter(nearest, np.float32(np.inf))


def static_height_width(value: ir.Value) -> tuple[int, int] | None:
    """Return height and width of an NCHW tensor, or None if they are unknown."""
    if value.shape is None or len(value.shape) != 4:
        return None
    height, width = value.shape[2], value.shape[3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
