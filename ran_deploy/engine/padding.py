"""Which batches are padded to a size that runs as a CUDA graph, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ran_deploy.manifest import BatchProfile

__all__ = ["Padding", "every_padding", "padded_size"]


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Batches of `least` to `size` - 1 images run as batches of `size`; what pads them is thrown away."""

    least: int
    size: int


def padded_size(padding: Sequence[Padding], batch: int) -> int:
    """Return the size that a batch of `batch` images runs at."""
    return next((each.size for each in padding if each.least <= batch < each.size), batch)


def every_padding(sizes: BatchProfile) -> tuple[Padding, ...]:
    """Return a padding of each size to the next power of two, or to the smallest, optimal or largest size before it."""
    powers = (2**k for k in range(sizes.maximum.bit_length()))
    steps = {size for size in powers if size >= sizes.minimum} | {sizes.minimum, sizes.optimum, sizes.maximum}
    return tuple(Padding(least=low + 1, size=high) for low, high in pairwise(sorted(steps)) if high - low > 1)
