"""Remove what no output depends on."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common_passes


def remove_unused(model: ir.Model) -> int:
    """Remove nodes and initializers that no graph output depends on, and opset imports that nothing uses.

    Before: Shape(x), w, Relu(x) -> graph output
    After:  Relu(x) -> graph output
    """
    before = size(model)
    common_passes.RemoveUnusedNodesPass()(model)
    common_passes.RemoveUnusedOpsetsPass()(model)
    return before - size(model)


def size(model: ir.Model) -> int:
    """Return the number of nodes, initializers and opset imports."""
    return len(model.graph) + len(model.graph.initializers) + len(model.opset_imports)
