"""Enlarging with half-pixel sample points in place of aligned corners: other numbers, which DLA can compute.

DLA takes a bilinear Resize with half-pixel coordinates alone, as TensorRT's own log says in
https://forums.developer.nvidia.com/t/unable-to-run-resize-layer-on-dla-on-xavier/219158
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant
from ran_deploy.converters.graph_facts import align_corners_resizes
from ran_deploy.converters.passes.resize_by_scales import rounded_up, static_height_width
from ran_deploy.errors import ConversionError

__all__ = ["resize_by_half_pixels"]

TRANSFORM = "coordinate_transformation_mode"


def resize_by_half_pixels(model: ir.Model) -> int:
    """Rewrite each linear Resize that aligns corners; return how many. The network then computes something else.

    A side of a pixels that becomes b is scaled by b / a, as torch's interpolate does with align_corners=False.
    Raises: ConversionError where sizes are unknown.
    """
    aligned = set(align_corners_resizes(model))
    resizes = [node for node in model.graph if node.outputs[0].name in aligned]
    for node in resizes:
        assert node.inputs[0] is not None
        source, target = static_height_width(node.inputs[0]), static_height_width(node.outputs[0])
        if source is None or target is None:
            raise ConversionError(f"Resize of {node.outputs[0].name!r} has no known size, which half pixels need.")
        scales = np.array([1, 1, *(rounded_up(b / a) for a, b in zip(source, target, strict=True))], np.float32)
        node.resize_inputs(3)
        node.replace_input_with(2, add_constant(model.graph, f"{node.outputs[0].name}_scales", scales))
        node.attributes[TRANSFORM] = ir.AttrString(TRANSFORM, "half_pixel")
    return len(resizes)
