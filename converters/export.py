"""PyTorch module to ONNX graph, by the dynamo exporter; the one place that deals with its noise and leftovers."""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Collection, Iterator

import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import torch
from torch import nn

from ran_deploy.converters.graph import ARTIFACT_OPSET, IR_VERSION, MODULE
from ran_deploy.errors import ConversionError

__all__ = ["onnx_from_module"]

NAME_SCOPES = "pkg.torch.onnx.name_scopes"  # a list: module paths from the root inwards, then the traced call


def onnx_from_module(
    module: nn.Module,
    input_size: tuple[int, int],
    *,
    input_name: str = "image",
    output_name: str = "logits",
    channels: int = 3,
) -> ir.Model:
    """Return `module` as a float32 graph: (batch, channels, *input_size) in, one tensor out, only the batch dynamic.

    The module itself stays as it is; its copy is exported in eval mode. Every node carries the path of the module it
    came from as metadata (`graph.MODULE`); everything else the exporter notes, local paths among it, is removed.
    Raises: ConversionError, with the cause in one line, if PyTorch cannot export the module.
    """
    try:
        twin = copy.deepcopy(module).cpu().float().eval()
        # Two images: torch.export takes a batch of 0 or 1 for a constant.
        example = torch.zeros(2, channels, *input_size)
        with quiet():
            program = torch.onnx.export(
                twin,
                (example,),
                dynamo=True,
                opset_version=ARTIFACT_OPSET,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as exc:  # whatever a user's module can raise while it is traced
        height, width = input_size
        raise ConversionError(
            f"Cannot export {type(module).__name__} at input size {height}x{width}: {root_cause(exc)}"
        ) from exc
    assert program is not None
    model = program.model
    require_one_input_and_output(model, type(module).__name__)
    common_passes.InlinePass()(model)
    name_modules(model, {name for name, _ in twin.named_modules()})
    strip_exporter_metadata(model)
    model.ir_version = IR_VERSION
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter prints, warns and logs while it works; its errors still come as exceptions."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def root_cause(exc: BaseException) -> str:
    """Return type and first line of the exception that started the chain."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def require_one_input_and_output(model: ir.Model, name: str) -> None:
    """Raise ConversionError for a network that the rest of the pipeline cannot feed or read."""
    inputs, outputs = len(model.graph.inputs), len(model.graph.outputs)
    if (inputs, outputs) != (1, 1):
        raise ConversionError(
            f"{name} has {inputs} inputs and {outputs} outputs; expected one image in and one tensor out. "
            "Wrap it in a module that takes one and returns one."
        )


def name_modules(model: ir.Model, modules: Collection[str]) -> None:
    """Store on every node the path of the module it came from."""
    for node in model.graph:
        node.metadata_props[MODULE] = module_path(node, modules)


def module_path(node: ir.Node, modules: Collection[str]) -> str:
    """Return the path of the module that owns the node's parameters, else of the innermost one it was traced in.

    Parameters come first: a convolution that absorbed a BatchNorm is noted by the exporter as the BatchNorm.
    """
    for value in node.inputs:
        if value is not None and value.is_initializer():
            owner = (value.name or "").rpartition(".")[0]
            if owner in modules:
                return owner
    scopes = ast.literal_eval(node.metadata_props.get(NAME_SCOPES, "['']"))
    return next((scope for scope in reversed(scopes) if scope in modules), "")


def strip_exporter_metadata(model: ir.Model) -> None:
    """Remove all metadata and doc strings but the module paths: the exporter's hold stack traces with local paths."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = model.graph.doc_string = None
    for node in model.graph:
        module = node.metadata_props[MODULE]
        node.metadata_props.clear()
        node.metadata_props[MODULE] = module
        node.doc_string = None
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
