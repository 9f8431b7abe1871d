"""Cutting a graph: the part that computes some tensors from others, as a model of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir
from onnx_ir.convenience import extract as extracted_graph

from ran_deploy.converters.graph import RANGE
from ran_deploy.errors import ConversionError

__all__ = ["behind_pair", "extract"]


def extract(model: ir.Model, outputs: Sequence[str], *, given: Collection[str] = ()) -> ir.Model:
    """Return the part of `model` that computes the tensors `outputs` where those of `given` are known.

    Its inputs are the given tensors that are needed, in graph order, and the graph inputs that are needed beside them;
    weights, Q/DQ and whatever else lies between come along. `model` never changes.
    Raises: ConversionError if a tensor does not exist, or an output is itself given.
    """
    values = {value.name or "": value for value in tensors_of(model.graph)}
    for name in (*outputs, *given):
        if name not in values:
            raise ConversionError(f"The graph has no tensor {name!r}. The names are of another graph: list them again.")
    if known := set(outputs) & set(given):
        raise ConversionError(f"Tensor {min(known)!r} is asked for and given at once; there is nothing to extract.")
    stops = {values[name] for name in given} | set(model.graph.inputs)
    needed = find_needed([values[name] for name in outputs], stops)
    inputs = [value for value in values.values() if value in needed]
    graph = extracted_graph(model.graph, inputs, [values[name] for name in outputs])
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.pop(RANGE, None)  # calibrated where it stood; nothing here is to be lowered again
    return ir.Model(graph, ir_version=model.ir_version)


def find_needed(outputs: Collection[ir.Value], stops: Collection[ir.Value]) -> set[ir.Value]:
    """Return those of `stops` that `outputs` are computed from."""
    pending, seen, needed = list(outputs), set(outputs), set()
    while pending:
        value = pending.pop()
        if value in stops:
            needed.add(value)
            continue
        producer = value.producer()
        sources = {source for source in (producer.inputs if producer is not None else ()) if source is not None}
        pending.extend(sources - seen)
        seen |= sources
    return needed


def tensors_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield graph inputs and outputs of nodes, in graph order."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def behind_pair(graph: ir.Graph, name: str) -> str:
    """Return the tensor at which an engine can be cut behind tensor `name` without taking a fused Q/DQ pair from it.

    That is the output of the pair, where one QuantizeLinear and behind it one DequantizeLinear are all that reads the
    tensor; else the tensor itself. ONNX Runtime has int8 kernels only where Q/DQ stand on both sides.
    """
    value = next(value for value in tensors_of(graph) if value.name == name)
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        readers = value.consumers()
        if len(readers) != 1 or readers[0].op_type != operator or value.is_graph_output():
            return name
        value = readers[0].outputs[0]
    return value.name or name
