"""How long the layers of an engine took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ran_deploy.runtime.timing import Timing

__all__ = ["LayerTime", "VendorProfile"]


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer, which is one kernel or a few: `ms` a run.

    `name` and `kind` are the vendor's words, `execution` is what it says of the kernel or of its types. `origins` are
    the graph's nodes it does, as far as the vendor names them, or the tensors they make; other names may be among
    them. `converts`: it changes type or layout alone.
    """

    name: str
    kind: str
    execution: str
    origins: tuple[str, ...]
    converts: bool
    ms: float


@dataclass(frozen=True, kw_only=True)
class VendorProfile:
    """What a vendor tells: the layers in the order they run, and how long whole runs took meanwhile.

    `statistic` is what the `ms` of a layer is of its times in all runs.
    """

    layers: tuple[LayerTime, ...]
    statistic: Literal["median", "median of means"]
    timing: Timing
