"""How much each region of a network suffers from INT8, and in which order regions are kept in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Sensitivity", "kept_shares", "most_harmful_first"]


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """A region: what it does to the outputs when it alone is INT8, and what it costs to leave it in float.

    `output_error` is the relative L2 of the outputs against the float network's; `multiply_adds` are of one image.
    """

    name: str
    output_error: float
    multiply_adds: int


def most_harmful_first(regions: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Return the regions by falling output error; of equals, the cheaper one first.

    Regions' errors are measured alone, as then they are independent: their squares add up to nearly that of the whole,
    so each prefix of the order removes the most error that so many regions can. Error by multiply-adds would put cheap
    regions with hardly any error before those that do the harm.
    """
    return tuple(sorted(regions, key=lambda region: (-region.output_error, region.multiply_adds, region.name)))


def kept_shares(regions: Sequence[Sensitivity]) -> tuple[float, ...]:
    """Return the share of multiply-adds, 0..1, in the first 0, 1, 2, ... of `regions`."""
    total, shares = sum(region.multiply_adds for region in regions) or 1, [0]
    for region in regions:
        shares.append(shares[-1] + region.multiply_adds)
    return tuple(share / total for share in shares)
