"""What an engine consists of, in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ran_deploy.counts import counted

if TYPE_CHECKING:
    from ran_deploy.converters.builders.engine_layers import EngineLayers

__all__ = ["engine_lines"]

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


def _shares(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())
