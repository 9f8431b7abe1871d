"""What an engine is given to do while it is profiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ran_deploy.engine.traits import NO_TRAITS, EngineTraits

__all__ = ["Workload"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Runs of `feeds`, a batch that `engine` takes: `runs` that count, after `warm_up` more.

    `threads` and `traits` are what it is loaded with, as in `open_runner`.
    """

    engine: bytes
    feeds: Mapping[str, np.ndarray]
    runs: int
    warm_up: int
    threads: int = 0
    traits: EngineTraits = NO_TRAITS
