"""Cross-layer equalisation: channels brought to like size by powers of two, so that one int8 scale fits them all.

A Relu lets positive factors through. What makes its input can therefore give channel c divided by s_c, and what reads
its output can take channel c times s_c: the network computes the same, with a power of two to the last bit.

Source: Nagel et al. 2019, arXiv:1906.04721, section 4.1; the factors are our own choice, see `equalization_factors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.equalization_factors import ReaderWeights, equalization_factors
from ran_deploy.converters.graph import add_constant, array_of, require_array
from ran_deploy.converters.quantize import remove_unread, weight_axis
from ran_deploy.manifest import EqualizationRecord

__all__ = ["Equalizable", "Sizes", "equalize", "find_equalizable", "reader_weights", "scale"]

BY_CHANNEL = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool"})


class Sizes(Protocol):
    """The largest |x| and the mean x^2 of each channel of a tensor, (C,) both."""

    @property
    def largest(self) -> np.ndarray: ...
    @property
    def mean_square(self) -> np.ndarray: ...


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

    A Conv or BatchNormalization with constant weights that only a Relu reads, whose output only Conv, Gemm, MatMul and
    BatchNormalization with such weights read, be it through pools, Resize and Flatten, which keep channels apart. No
    tensor between may be a graph output.
    """
    found = []
    for node in graph:
        if node.op_type != "Relu" or node.domain != "":
            continue
        producer = scalable_producer(node.inputs[0])
        readers = readers_behind(node.outputs[0])
        if producer is None or not readers:
            continue
        channels = len(require_array(producer.inputs[1]))
        if all(takes_channels(reader, channels) for reader in readers):
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
    """Return the nodes with constant weights that read `value`; none if anything else does."""
    readers: list[ir.Node] = []
    for use in value.uses():
        if use.idx != 0 or use.node.domain != "":
            return ()
        further: tuple[ir.Node, ...] = (use.node,) if has_constant_weights(use.node) else ()
        if keeps_channels_apart(use.node):
            further = readers_behind(use.node.outputs[0])
        if not further:
            return ()
        readers += further
    return () if value.is_graph_output() else tuple(readers)


def has_constant_weights(node: ir.Node) -> bool:
    """Return whether a node is linear in its data by constants alone."""
    if node.op_type not in ("Conv", "Gemm", "MatMul", "BatchNormalization"):
        return False
    if node.attributes.get_int("transA", 0) or node.attributes.get_int("training_mode", 0):
        return False
    return all(array_of(value) is not None for value in node.inputs[1:] if value is not None)


def takes_channels(node: ir.Node, channels: int) -> bool:
    """Return whether the weights of a node of constant ones can take a factor for each channel of its input."""
    weight = require_array(node.inputs[1])
    if node.op_type == "BatchNormalization":
        return len(weight) == channels
    if node.op_type == "Conv":
        return weight.shape[1] * groups_of(node) == channels
    return weight.ndim == 2 and is_row_by_image(node.inputs[0]) and weight.shape[1 - weight_axis(node)] % channels == 0


def is_row_by_image(value: ir.Value | None) -> bool:
    """Return whether a tensor has one vector for each image, as a Flatten gives it."""
    return value is not None and value.shape is not None and len(value.shape) == 2


def keeps_channels_apart(node: ir.Node) -> bool:
    """Return whether each channel of the output comes from one of the input alone, and grows as that does."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return False  # the indices of a MaxPool
    if node.op_type == "Flatten":
        return node.attributes.get_int("axis", 1) == 1
    return node.op_type in BY_CHANNEL or (node.op_type == "Resize" and is_spatial(node))


def is_spatial(resize: ir.Node) -> bool:
    """Return whether a Resize leaves channels as they are and fills no pixel with a constant."""
    shapes = [value.shape if value is not None else None for value in (resize.inputs[0], resize.outputs[0])]
    channels = [shape[1] if shape is not None and len(shape) == 4 else None for shape in shapes]
    fills = resize.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    return isinstance(channels[0], int) and channels[0] == channels[1] and not fills


def equalize(model: ir.Model, sizes: Mapping[str, Sizes]) -> EqualizationRecord:
    """Scale channels that stand out, in place, so that int8 adds less noise to what reads them.

    `sizes` has those of every `Equalizable.tensor` on calibration images.
    """
    tensors = channels = 0
    largest = 1.0
    for place in find_equalizable(model.graph):
        found = sizes[place.tensor]
        weights = [reader_weights(reader, len(found.largest)) for reader in place.readers]
        factors = equalization_factors(found.largest, found.mean_square, weights)
        if (factors == 1).all():
            continue
        scale(model.graph, place, factors)
        tensors += 1
        channels += int((factors != 1).sum())
        largest = max(largest, float(factors.max()), float(1 / factors.min()))
    return EqualizationRecord(tensors=tensors, channels=channels, largest_factor=largest)


def reader_weights(node: ir.Node, channels: int) -> ReaderWeights:
    """Return the sizes of the weights with which a node reads each of the channels, 0 where it does not."""
    weight = require_array(node.inputs[1])
    if node.op_type == "BatchNormalization":  # its own constants stay float and add no noise
        variance = require_array(node.inputs[4]).astype(np.float64)
        square = weight.astype(np.float64) ** 2 / (variance + node.attributes.get_float("epsilon", 1e-5))
        return ReaderWeights(np.zeros((channels, channels)), np.diag(square), 1)
    groups, inputs = (groups_of(node), weight.shape[1]) if node.op_type == "Conv" else (1, channels)
    oriented = np.moveaxis(weight, 0 if node.op_type == "Conv" else weight_axis(node), 0)
    flat = oriented.reshape(len(oriented), inputs, -1)
    largest = np.maximum(flat.max(axis=2), -flat.min(axis=2)).astype(
        np.float64
    )  # no copy of weights: they can be large
    square = np.einsum("oip,oip->oi", flat, flat).astype(np.float64)
    return ReaderWeights(by_channel(largest, groups), by_channel(square, groups), flat.shape[2])


def by_channel(array: np.ndarray, groups: int) -> np.ndarray:
    """Return (O, I) of a grouped convolution as (O, I * groups), zero where a group has no say."""
    outputs, inputs = array.shape
    if groups == 1:
        return array
    spread = np.zeros((groups, outputs // groups, groups, inputs))
    spread[np.arange(groups), :, np.arange(groups)] = array.reshape(groups, -1, inputs)
    return spread.reshape(outputs, groups * inputs)


def groups_of(node: ir.Node) -> int:
    return node.attributes.get_int("group", 1)


def scale(graph: ir.Graph, place: Equalizable, factors: np.ndarray) -> None:
    """Divide the channels of `place` by positive `factors` (C,), and multiply what reads them."""
    divide_outputs(graph, place.producer, factors)
    for reader in place.readers:
        multiply_inputs(graph, reader, factors)


def divide_outputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    """Make a Conv or BatchNormalization give channel c divided by factors[c]."""
    for index in (1, 2):  # weight and bias; scale and shift
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is not None:
            array = require_array(value)
            replace_constant(graph, node, index, array / factors.reshape(-1, *[1] * (array.ndim - 1)))


def multiply_inputs(graph: ir.Graph, node: ir.Node, factors: np.ndarray) -> None:
    """Make a node take channel c times factors[c]."""
    weight = require_array(node.inputs[1])
    if node.op_type == "BatchNormalization":  # gamma s (x / s - mean / s): the variance stays what it was
        replace_constant(graph, node, 1, weight * factors)
        replace_constant(graph, node, 3, require_array(node.inputs[3]) / factors)
    elif node.op_type == "Conv":
        groups = groups_of(node)
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        by_group = factors.reshape(groups, 1, weight.shape[1], *[1] * (weight.ndim - 2))
        replace_constant(graph, node, 1, (grouped * by_group).reshape(weight.shape))
    else:
        axis = weight_axis(node)
        pixels = weight.shape[1 - axis] // len(factors)  # those of a flattened channel follow each other
        replace_constant(graph, node, 1, weight * np.expand_dims(np.repeat(factors, pixels), axis))


def replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give `node` a constant of its own at `index`: others may share the one it has."""
    value = node.inputs[index]
    assert value is not None
    node.replace_input_with(index, add_constant(graph, f"{value.name}_equalized", array.astype(np.float32)))
    remove_unread(graph, [value])
