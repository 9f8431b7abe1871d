"""Cross-layer equalisation: channels brought to like size by powers of two, so that one int8 scale fits them all.

A Relu lets positive factors through. What makes its input can therefore give channel c divided by s_c, and what reads
its output can take channel c times s_c: the network computes the same, with a power of two to the last bit.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1 (the identity); Xiao et al. 2022, arXiv:2211.10438, equation 4
with alpha 0.5 (factors from activations and weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.graph import add_constant, array_of, require_array
from ran_deploy.converters.quantize import remove_unread
from ran_deploy.manifest import EqualizationRecord

__all__ = ["Equalizable", "channel_factors", "equalize", "find_equalizable", "weight_shares"]

SMALLEST_EXPONENT = 2  # of a factor that is applied: channels of sane networks differ by less, and gain nothing
LARGEST_EXPONENT = 15  # of a factor; FP16 holds numbers of 2**-14 to 2**15 in full
SMALLEST_SHARE = 2.0**-20  # a channel that no weight uses counts as one that is hardly used
BY_CHANNEL = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool", "Resize"})


@dataclass(frozen=True)
class Equalizable:
    """A Relu whose channels can be scaled: the Conv or BatchNormalization before it, and the layers that read it."""

    producer: ir.Node
    relu: ir.Node
    readers: tuple[ir.Node, ...]

    @property
    def tensor(self) -> str:
        """The name of the Relu's output."""
        return self.relu.outputs[0].name or ""


def find_equalizable(graph: ir.Graph) -> list[Equalizable]:
    """Return the places where channels can be scaled without any change to the outputs, in graph order.

    A Conv or BatchNormalization with constant weights that only a Relu reads, whose output only Conv and Gemm with such
    weights read, be it through pools and Resize, which keep channels apart. No tensor between may be a graph output.
    """
    found = []
    for node in graph:
        if node.op_type != "Relu" or node.domain != "":
            continue
        producer = scalable_producer(node.inputs[0])
        readers = readers_behind(node.outputs[0])
        if producer is not None and readers:
            found.append(Equalizable(producer, node, readers))
    return found


def scalable_producer(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes `value` for one reader alone, if its constants can take a factor for each channel."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.domain != "" or value.is_graph_output() or len(value.uses()) != 1:
        return None
    constants = {"Conv": node.inputs[1:3], "BatchNormalization": node.inputs[1:5]}.get(node.op_type)
    if constants is None or any(array_of(constant) is None for constant in constants if constant is not None):
        return None
    return None if node.attributes.get_int("training_mode", 0) else node


def readers_behind(value: ir.Value) -> tuple[ir.Node, ...]:
    """Return the Conv and Gemm nodes that read `value` with constant weights; none if anything else does."""
    readers: list[ir.Node] = []
    for use in value.uses():
        if use.idx != 0 or use.node.domain != "":
            return ()
        further: tuple[ir.Node, ...] = (use.node,) if takes_factors(use.node) else ()
        if keeps_channels_apart(use.node):
            further = readers_behind(use.node.outputs[0])
        if not further:
            return ()
        readers += further
    return () if value.is_graph_output() else tuple(readers)


def takes_factors(node: ir.Node) -> bool:
    """Return whether a node has constant weights (O, I, ...) that can take a factor for each channel of its input."""
    as_stored = node.attributes.get_int("transA", 0) == 0 and node.attributes.get_int("transB", 0) == 1
    known = node.op_type == "Conv" or (node.op_type == "Gemm" and as_stored)
    return known and array_of(node.inputs[1]) is not None


def keeps_channels_apart(node: ir.Node) -> bool:
    """Return whether each channel of the output comes from one of the input, and grows as that does."""
    if node.op_type == "Flatten":
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        return shape is not None and node.attributes.get_int("axis", 1) == 1 and list(shape[2:]) == [1, 1]
    return node.op_type in BY_CHANNEL


def equalize(model: ir.Model, maxima: Mapping[str, np.ndarray]) -> EqualizationRecord:
    """Scale channels that stand out, in place, towards a like share of their tensor's range and their readers' weights.

    `maxima` has for every `Equalizable.tensor` the largest value of each channel, (C,), on calibration images.
    """
    tensors = channels = 0
    largest = 1.0
    for place in find_equalizable(model.graph):
        shares = [weight_shares(require_array(reader.inputs[1]), groups_of(reader)) for reader in place.readers]
        factors = channel_factors(maxima[place.tensor], np.max(shares, axis=0))
        if (factors == 1).all():
            continue
        divide_outputs(model.graph, place.producer, factors)
        for reader in place.readers:
            multiply_inputs(model.graph, reader, factors)
        tensors += 1
        channels += int((factors != 1).sum())
        largest = max(largest, float(factors.max()), float(1 / factors.min()))
    return EqualizationRecord(tensors=tensors, channels=channels, largest_factor=largest)


def channel_factors(maxima: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return a power of two for each channel, by which to divide it: sqrt(its share of the range / of the weights).

    `maxima` (C,) are the channels' largest values and `shares` (C,) what `weight_shares` says; their geometric mean is
    near 1. Channels that differ by less than a factor of 4 keep their size, and so does one that was always zero.
    """
    factors = np.ones(maxima.shape)
    active = maxima > 0
    if active.any():
        exponents = 0.5 * (np.log2(maxima[active]) - np.log2(np.maximum(shares[active], SMALLEST_SHARE)))
        rounded = np.rint(exponents - exponents.mean())
        rounded[np.abs(rounded) < SMALLEST_EXPONENT] = 0
        factors[active] = np.exp2(np.clip(rounded, -LARGEST_EXPONENT, LARGEST_EXPONENT))
    return factors


def weight_shares(weight: np.ndarray, groups: int = 1) -> np.ndarray:
    """Return for each input channel the largest |w| it has in any output channel, as a share of that channel's largest.

    Shapes: weight (O, I / groups, ...) -> (I,). 1: somewhere the channel decides on the scale, as int8 scales are by
    output channel; near 0: its weights are lost in the rounding of others.
    """
    by_input = np.abs(weight.astype(np.float64)).reshape(*weight.shape[:2], -1).max(axis=2)
    largest = by_input.max(axis=1, keepdims=True)
    shares = np.divide(by_input, largest, out=np.zeros_like(by_input), where=largest > 0)
    return shares.reshape(groups, -1, weight.shape[1]).max(axis=1).reshape(-1)


def groups_of(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def divide_outputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    """Make a Conv or BatchNormalization give channel c divided by factors[c]."""
    for index in (1, 2):  # weight and bias; scale and shift
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None:
            array = require_array(value)
            replace_constant(graph, node, index, array / factors.reshape(-1, *[1] * (array.ndim - 1)))


def multiply_inputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    """Make a Conv or Gemm take channel c times factors[c]."""
    weight, groups = require_array(node.inputs[1]), groups_of(node)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    shape: Sequence[int] = (groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
    replace_constant(graph, node, 1, (grouped * factors.reshape(shape)).reshape(weight.shape))


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give `node` a constant of its own at `index`: others may share the one it has."""
    value = node.inputs[index]
    assert value is not None
    node.replace_input_with(index, add_constant(graph, f"{value.name}_equalized", array.astype(np.float32)))
    remove_unread(graph, [value])
