"""Two runners of one embedding over a data set: how far vectors turn, and what that does to telling same from other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ran_deploy.datasets.pairs import ImagePairs
from ran_deploy.verification.comparison import Comparison, Infer, compare_by
from ran_deploy.verification.metrics import ErrorSums, LogitErrors, error_sums, logit_errors, row_cosines
from ran_deploy.verification.same_different import SameDifferent, same_different
from ran_deploy.verification.statistics import PairedOutcome

__all__ = ["Compared", "CosineSummary", "EmbeddingComparison", "TurnedImage", "compare_embeddings"]


@dataclass(frozen=True, kw_only=True)
class CosineSummary:
    """The cosines between the two vectors of each image; `percentile_1` is what 1 % of the images are below."""

    mean: float
    median: float
    percentile_5: float
    percentile_1: float
    lowest: float


@dataclass(frozen=True, kw_only=True)
class TurnedImage:
    """One image: the cosine between its two vectors, and the relative L2 error (None for a reference of zeros)."""

    index: int
    cosine: float
    relative_l2: float | None


@dataclass(frozen=True, kw_only=True)
class EmbeddingComparison:
    """An engine against its reference on the same images.

    `vectors` are the errors over all elements together, `turned` the images with the lowest cosines, lowest first.
    `same_different` is None without pairs of images.
    """

    images: int
    vectors: LogitErrors
    cosine: CosineSummary
    turned: tuple[TurnedImage, ...]
    same_different: SameDifferent | None

    @property
    def outcome(self) -> PairedOutcome | None:
        """What a budget is judged by."""
        return self.same_different.outcome if self.same_different else None

    @property
    def reference_guesses(self) -> bool:
        """Whether even the reference is hardly better than chance."""
        return self.same_different is not None and self.same_different.reference_guesses

    @property
    def worst(self) -> tuple[int, ...]:
        """The images to look at."""
        return tuple(image.index for image in self.turned)

    def renumbered(self, indices: Sequence[int]) -> EmbeddingComparison:
        """Return the same with `indices[i]` as the number of image i."""
        return replace(self, turned=tuple(replace(image, index=indices[image.index]) for image in self.turned))


Compared = Comparison | EmbeddingComparison  # what verification finds of a bundle, by its task


def compare_embeddings(
    reference: Infer,
    engine: Infer,
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    *,
    pairs: ImagePairs | None = None,
    worst: int = 12,
    progress: Callable[[int], None] | None = None,
) -> EmbeddingComparison:
    """Run both on every batch of images (N, H, W, 3) and compare their vectors (N, features).

    `pairs` number the images in their order. With pairs all vectors are kept, else sums and one cosine an image; labels
    are not looked at. `progress` hears the number of images done so far.
    Raises: as `verification.comparison.compare`, and DatasetError for pairs that cannot be judged.
    """
    return compare_by(_Tally(pairs, worst), reference, engine, batches, progress)


class _Tally:
    """What is remembered from batch to batch."""

    def __init__(self, pairs: ImagePairs | None, worst: int) -> None:
        self.images = 0
        self.pairs = pairs
        self.worst = worst
        self.errors = ErrorSums()
        self.cosines: list[np.ndarray] = []
        self.turned: list[TurnedImage] = []
        self.vectors: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None:
        del labels
        self.errors += error_sums(expected, found)
        cosines = row_cosines(expected, found)
        self.cosines.append(cosines)
        for row in np.argsort(cosines, kind="stable")[: self.worst].tolist():
            distance = logit_errors(error_sums(expected[row], found[row])).relative_l2
            self.turned.append(TurnedImage(index=self.images + row, cosine=float(cosines[row]), relative_l2=distance))
        self.turned = sorted(self.turned, key=lambda image: (image.cosine, image.index))[: self.worst]
        if self.pairs is not None:
            for kept, vectors in zip(self.vectors, (expected, found), strict=True):
                kept.append(vectors)
        self.images += len(expected)

    def result(self) -> EmbeddingComparison:
        cosines = np.concatenate(self.cosines)
        lowest, first, fifth, median = np.percentile(cosines, (0, 1, 5, 50)).tolist()
        return EmbeddingComparison(
            images=self.images,
            vectors=logit_errors(self.errors),
            cosine=CosineSummary(
                mean=float(cosines.mean()), median=median, percentile_5=fifth, percentile_1=first, lowest=lowest
            ),
            turned=tuple(self.turned),
            same_different=self._same_different(),
        )

    def _same_different(self) -> SameDifferent | None:
        if self.pairs is None:
            return None
        reference, engine = (
            row_cosines(vectors[self.pairs.first], vectors[self.pairs.second])
            for vectors in map(np.concatenate, self.vectors)
        )
        return same_different(reference, engine, self.pairs.same)
