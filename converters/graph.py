"""Small helpers around one `onnx_ir.Model`: bytes in and out, constants, names, the module a node came from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir

from ran_deploy.errors import ConversionError

__all__ = [
    "ARTIFACT_OPSET",
    "ATTENTION",
    "IR_VERSION",
    "MODULE",
    "RANGE",
    "add_constant",
    "array_of",
    "check",
    "insert_after",
    "model_bytes",
    "model_from_bytes",
    "module_of",
    "require_array",
    "unused_name",
]

ARTIFACT_OPSET = 18
IR_VERSION = 10  # the newest that TensorRT 10 and ONNX Runtime 1.18 read
MODULE = "ran_deploy.module"  # node metadata: path of the nn.Module the node came from, "" for the root
ATTENTION = "attention"  # stands there for nodes that only make attention outputs
RANGE = "ran_deploy.range"  # tensor metadata: calibrated max |x|, as repr of a float


def model_bytes(model: ir.Model) -> bytes:
    """Return `model` serialised; equal models give equal bytes."""
    return ir.to_proto(model).SerializeToString(deterministic=True)


def model_from_bytes(data: bytes) -> ir.Model:
    """Return the model `data` holds. Raises: ConversionError if it is no ONNX model."""
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as exc:  # protobuf's DecodeError, a name that onnx does not pass on
        raise ConversionError(f"These {len(data)} bytes are no ONNX model ({exc}). Export the graph again.") from exc
    if not proto.graph.node:
        raise ConversionError(f"These {len(data)} bytes hold no ONNX graph. Export the graph again.")
    return ir.from_proto(proto)


def check(model: ir.Model) -> None:
    """Run ONNX's own checker with full shape and type inference.

    Raises: ConversionError with the checker's first line.
    """
    try:
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        reason = str(exc).strip().splitlines()[0]
        raise ConversionError(f"The converted graph is not valid ONNX: {reason}. Report this network.") from exc


def module_of(node: ir.Node) -> str:
    """Return the path of the module `node` came from, "" where that is the root or unknown."""
    return node.metadata_props.get(MODULE, "")


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of an initializer that nobody can override, else None."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value.numpy()


def require_array(value: ir.Value | None) -> np.ndarray:
    """Return the array of an initializer that our own search has already found to be one."""
    array = array_of(value)
    assert array is not None
    return array


def unused_name(graph: ir.Graph, wish: str) -> str:
    """Return `wish`, with a number behind it if the graph has a tensor of that name."""
    candidates = itertools.chain([wish], (f"{wish}_{i}" for i in itertools.count(1)))
    return next(name for name in candidates if not has_tensor(graph, name))


def has_tensor(graph: ir.Graph, name: str) -> bool:
    """Return whether an input, an initializer or an output of a node has this name."""
    if name in graph.initializers or any(value.name == name for value in graph.inputs):
        return True
    return any(output.name == name for node in graph for output in node.outputs)


def add_constant(graph: ir.Graph, wish: str, array: np.ndarray) -> ir.Value:
    """Add an initializer named like `wish` and return it."""
    name = unused_name(graph, wish)
    tensor = ir.tensor(np.ascontiguousarray(array) if array.ndim else array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def insert_after(source: ir.Value, graph: ir.Graph, nodes: Sequence[ir.Node]) -> None:
    """Put `nodes` behind the node that makes `source`, or first where `source` is a graph input or initializer."""
    producer = source.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    elif len(graph) > 0:
        graph.insert_before(graph.node(0), nodes)
    else:
        graph.extend(nodes)
