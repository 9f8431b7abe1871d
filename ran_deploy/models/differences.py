"""How the weights that a network wants and those that a checkpoint has differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ran_deploy.models.network import DESIGN_KEY

__all__ = ["Differences", "differences", "is_weight"]

MOST_NAMED = 3


@dataclass(frozen=True)
class Differences:
    """Keys that are missing and unexpected, and a text for each of another shape."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = ((self.missing, "missing"), (self.unexpected, "unexpected"), (self.reshaped, "of another shape"))
        return "; ".join(
            f"{len(lines)} {kind} ({', '.join(lines[:MOST_NAMED])}{', ...' if len(lines) > MOST_NAMED else ''})"
            for lines, kind in kinds
            if lines
        )


def differences(
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    is_dead: Callable[[str], bool] = lambda key: False,
) -> Differences:
    """Return how shapes by key differ; `is_dead` tells keys that may be there and are never used.

    What networks keep beside weights (see `is_weight`) may differ.
    """
    wanted = {key: shape for key, shape in expected.items() if is_weight(key)}
    return Differences(
        missing=tuple(key for key in wanted if key not in found),
        unexpected=tuple(key for key in found if key not in wanted and is_weight(key) and not is_dead(key)),
        reshaped=tuple(
            f"{key} has shape {found[key]}, expected {shape}"
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ),
    )


def is_weight(key: str) -> bool:
    """Tell weights and statistics from what a network keeps beside them: counters of batches, its design."""
    return not key.endswith(("num_batches_tracked", DESIGN_KEY))
