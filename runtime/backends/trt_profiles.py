"""The optimisation profiles of a TensorRT engine, and which of them serves a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ran_deploy.errors import ShapeError
from ran_deploy.runtime.runner import TensorSpec

__all__ = ["Profile", "Shapes", "profiles_of", "tightest"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The shapes that one profile takes, from `smallest` to `largest` by the name of the input."""

    index: int
    smallest: Shapes
    largest: Shapes

    def holds(self, name: str, shape: tuple[int, ...]) -> bool:
        low, high = self.smallest[name], self.largest[name]
        return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    @property
    def width(self) -> int:
        """How many shapes it takes: kernels are chosen for the optimum among them, so fewer are better served."""
        return math.prod(
            high - low + 1
            for name in self.largest
            for low, high in zip(self.smallest[name], self.largest[name], strict=True)
        )

    @property
    def volume(self) -> int:
        """The elements of the largest inputs it takes."""
        return sum(math.prod(shape) for shape in self.largest.values())


def profiles_of(engine: Any, inputs: Sequence[TensorSpec]) -> tuple[Profile, ...]:
    """Return the profiles of an ICudaEngine; one of static shapes has a single one."""
    return tuple(_profile(engine, index, inputs) for index in range(engine.num_optimization_profiles))


def _profile(engine: Any, index: int, inputs: Sequence[TensorSpec]) -> Profile:
    smallest, largest = {}, {}
    for spec in inputs:
        if None in spec.shape:
            low, _, high = engine.get_tensor_profile_shape(spec.name, index)
        else:
            low = high = spec.shape
        smallest[spec.name], largest[spec.name] = tuple(map(int, low)), tuple(map(int, high))
    return Profile(index=index, smallest=smallest, largest=largest)


def tightest(profiles: Sequence[Profile], shapes: Shapes) -> Profile:
    """Return the narrowest profile that takes `shapes`. Raises: ShapeError naming the input and what would fit."""
    fitting = [each for each in profiles if all(each.holds(name, shape) for name, shape in shapes.items())]
    if fitting:
        return min(fitting, key=lambda each: each.width)
    name, shape = next(
        (item for item in shapes.items() if not any(each.holds(*item) for each in profiles)), next(iter(shapes.items()))
    )
    accepted = dict.fromkeys(_described(each.smallest[name], each.largest[name]) for each in profiles)
    raise ShapeError(f"Input {name!r} has shape {shape}; this engine accepts {' or '.join(accepted)}.")


def _described(smallest: tuple[int, ...], largest: tuple[int, ...]) -> str:
    sizes = (str(a) if a == b else f"{a} to {b}" for a, b in zip(smallest, largest, strict=True))
    return f"({', '.join(sizes)})"
