"""What every loaded engine can do, and the checks written once around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ran_deploy.errors import ShapeError

__all__ = ["Runner", "TensorSpec", "infer_checked"]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, NumPy dtype name and shape of one input or output; None is the batch, any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


class Runner(Protocol):
    """A loaded engine. `infer` may be called from several threads."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch; every array's first axis is the batch."""
        ...

    def close(self) -> None:
        """Release the engine and its memory; a second call does nothing."""
        ...


def infer_checked(runner: Runner, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Check names, types and shapes, then run. Raises: ShapeError naming the input, what it has and what fits."""
    for spec in runner.inputs:
        if spec.name not in feeds:
            raise ShapeError(f"Input {spec.name!r} is missing; found {', '.join(map(repr, feeds)) or 'nothing'}.")
        array = feeds[spec.name]
        if array.dtype.name != spec.dtype:
            raise ShapeError(f"Input {spec.name!r} has type {array.dtype.name}; this engine accepts {spec.dtype}.")
        fits = array.ndim == len(spec.shape) and all(
            n in (None, m) for n, m in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.shape[0] == 0:
            accepted = ", ".join("N" if n is None else str(n) for n in spec.shape)
            raise ShapeError(f"Input {spec.name!r} has shape {array.shape}; this engine accepts ({accepted}).")
    return runner.infer(feeds)
