"""What an engine consists of, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.converters.builders.engine_layers import EngineLayers
    from ran_deploy.converters.builders.trt_dla import DlaLayers
    from ran_deploy.engine.padding import Padding

__all__ = ["dla_lines", "engine_lines", "half_pixel_note", "padding_line"]

SHOWN = 5  # names of layers


def engine_lines(layers: EngineLayers) -> list[str]:
    """Return precisions, INT8 kernels, conversions and what stayed in FP32, a line each."""
    kernels = counted(sum(layers.precisions.values()), "kernel")
    lines = [f"layers: {kernels}, {_shares(layers.precisions)}; {layers.fused} do the work of several nodes"]
    if layers.products:
        products = counted(layers.products, "convolution or product", "convolutions and products")
        lines.append(f"int8: {layers.int8_products} of {products}")
    lines.append(f"conversions of type or layout: {_shares(layers.conversions) or 'none'}")
    if layers.in_fp32:
        rest = len(layers.in_fp32) - SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"in fp32: {', '.join(layers.in_fp32[:SHOWN])}{more}")
    return lines


def dla_lines(kinds: Sequence[DlaLayers]) -> list[str]:
    """Return a table of what a build gives to DLA and to the GPU, kind by kind, with TensorRT's first reason."""
    taken, left = (sum(count) for count in zip(*((each.on_dla, each.on_gpu) for each in kinds), strict=True))
    lines = [f"DLA takes {taken} of {counted(taken + left, 'layer')}, the GPU the rest"]
    width = max(len(each.kind) for each in kinds)
    for each in kinds:
        reason = f"  {each.reasons[0]}" if each.on_gpu and each.reasons else ""
        lines.append(f"  {each.kind:<{width}}  DLA {each.on_dla:>3}  GPU {each.on_gpu:>3}{reason}")
    return lines


def half_pixel_note(half_pixel: bool) -> str:
    """Return what is said behind the name of an engine that computes something else than its network."""
    return ", with half-pixel sample points" if half_pixel else ""


def padding_line(padding: Sequence[Padding]) -> str:
    """Return which batches are padded, and how far."""
    if not padding:
        return "padding: no batch size runs faster padded"
    spans = ((each.least, each.size - 1, each.size) for each in padding)
    told = (f"{low if low == high else f'{low} to {high}'} as {size}" for low, high, size in spans)
    return f"padding: batches of {', of '.join(told).replace(' as ', ' run as ', 1)}"


def _shares(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())
