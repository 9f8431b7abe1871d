"""What one row of a bundle's output means to its user: in files, on a terminal, as an array.

This is the one place of the runtime that knows tasks; sinks and commands only pass rows to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Manifest, Task
from ran_deploy.runtime.postprocess import l2_normalized, top_k
from ran_deploy.text import text_cell

__all__ = ["Answers", "Classes", "Embeddings", "answers_of"]

SHOWN_FEATURES = 4  # of an embedding, to a person


class Answers(Protocol):
    """How rows, float32 (size,), are written; `columns` of CSV stand between source and error."""

    @property
    def size(self) -> int: ...
    @property
    def columns(self) -> tuple[str, ...]: ...
    def vector(self, row: np.ndarray) -> np.ndarray:
        """Return the row as arrays hold it, float32 (size,)."""
        ...

    def fields(self, row: np.ndarray | None) -> dict[str, Any]:
        """Return what a JSON object has between source and error; `row` is None where the image failed."""
        ...

    def cells(self, row: np.ndarray) -> list[list[str]]:
        """Return the rows of CSV, each as long as `columns`, safe for spreadsheets."""
        ...

    def line(self, row: np.ndarray) -> str:
        """Return one line for a person."""
        ...


@dataclass(frozen=True)
class Classes:
    """Logits: the `top_k` likeliest classes, one row of CSV each, rank 1 the likeliest. Arrays hold all logits."""

    size: int
    top_k: int = 1
    labels: Sequence[str] | None = None
    columns: tuple[str, ...] = ("rank", "index", "label", "probability", "logit")

    def vector(self, row: np.ndarray) -> np.ndarray:
        return row

    def fields(self, row: np.ndarray | None) -> dict[str, Any]:
        return {"predictions": [] if row is None else top_k(row[None], self.top_k, self.labels)[0]}

    def cells(self, row: np.ndarray) -> list[list[str]]:
        return [
            [str(rank), str(best.index), text_cell(best.label or ""), f"{best.probability:.6g}", f"{best.logit:.6g}"]
            for rank, best in enumerate(top_k(row[None], self.top_k, self.labels)[0], 1)
        ]

    def line(self, row: np.ndarray) -> str:
        return "  ".join(
            f"{best.label if best.label is not None else best.index} {100 * best.probability:.1f} %"
            for best in top_k(row[None], self.top_k, self.labels)[0]
        )


@dataclass(frozen=True)
class Embeddings:
    """Features as the network gives them, or with L2 norm 1: one column of CSV each."""

    size: int
    normalize: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"f{index}" for index in range(self.size))

    def vector(self, row: np.ndarray) -> np.ndarray:
        return l2_normalized(row[None])[0] if self.normalize else row

    def fields(self, row: np.ndarray | None) -> dict[str, Any]:
        return {"embedding": None if row is None else [float(value) for value in self._digits(row)]}

    def cells(self, row: np.ndarray) -> list[list[str]]:
        return [self._digits(row)]

    def line(self, row: np.ndarray) -> str:
        vector = self.vector(row)
        first = " ".join(f"{value:+.4f}" for value in vector[:SHOWN_FEATURES])
        more = " ..." if self.size > SHOWN_FEATURES else ""
        return f"norm {np.linalg.norm(vector):.4f}  {first}{more}"

    def _digits(self, row: np.ndarray) -> list[str]:
        """Return the fewest digits that give each float32 back."""
        return [str(value) for value in self.vector(row)]


def answers_of(manifest: Manifest, *, top_k: int | None = None, normalize: bool = False) -> Answers:
    """Return how the outputs of a bundle are read; `top_k` None means 1.

    Raises: ConfigError for an option that the bundle's task has no use for.
    """
    if manifest.task is Task.EMBEDDING:
        if top_k is not None:
            raise ConfigError(
                f"--top-k names classes, but {manifest.name} is an embedding: it gives "
                f"{manifest.task.counted(manifest.output_size)} an image. Leave --top-k out."
            )
        return Embeddings(manifest.output_size, normalize)
    if normalize:
        raise ConfigError(f"--normalize is for embeddings, but {manifest.name} is a classifier. Leave it out.")
    return Classes(manifest.output_size, top_k or 1, manifest.labels)
