"""How far an engine's soft masks are from its reference's, module by module: does it still look at the same places?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ran_deploy.manifest import AttentionRecord
from ran_deploy.verification.comparison import Infer, compare_by
from ran_deploy.verification.metrics import ErrorSums, error_sums, logit_errors

__all__ = [
    "AttentionComparison",
    "ComparedMasks",
    "ModuleFidelity",
    "MovedImage",
    "compare_attention",
    "moved_shares",
    "row_correlations",
    "rows_from_masks",
    "split_rows",
]

FLAT = 1e-6  # of the largest value: what rounding of float32 means leaves of a mask that is one value everywhere


@dataclass(frozen=True, kw_only=True)
class ModuleFidelity:
    """One module's masks (height, width), the engine's against the reference's.

    Correlations are Pearson's over the positions of each image's mask: their mean and the lowest over all images but
    the `flat` ones, whose reference is one value everywhere and correlates with nothing; None where all are flat.
    `moved_*` are percentages of the attention that lie elsewhere, see `moved_shares`: None for masks with negative
    values. `relative_l2` is over all images and positions together; None for a reference of zeros.
    """

    name: str
    height: int
    width: int
    correlation_mean: float | None
    correlation_worst: float | None
    flat: int
    relative_l2: float | None
    moved_mean: float | None
    moved_worst: float | None


@dataclass(frozen=True, kw_only=True)
class MovedImage:
    """One image, and the correlation of its masks by name of the module: None where the reference is flat."""

    index: int
    correlations: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class ComparedMasks:
    """The masks (h, w) of one image by name of the module."""

    reference: Mapping[str, np.ndarray]
    engine: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class AttentionComparison:
    """An engine's attention against its reference's on the same images.

    `moved` are the images with the lowest correlation in some module, lowest first; `masks` are theirs, by index.
    """

    images: int
    modules: tuple[ModuleFidelity, ...]
    moved: tuple[MovedImage, ...]
    masks: Mapping[int, ComparedMasks]

    def renumbered(self, indices: Sequence[int]) -> AttentionComparison:
        """Return the same with `indices[i]` as the number of image i."""
        return replace(
            self,
            moved=tuple(replace(image, index=indices[image.index]) for image in self.moved),
            masks={indices[index]: masks for index, masks in self.masks.items()},
        )


def compare_attention(
    reference: Infer,
    engine: Infer,
    batches: Iterable[tuple[np.ndarray, np.ndarray | None]],
    records: Sequence[AttentionRecord],
    *,
    worst: int = 4,
    progress: Callable[[int], None] | None = None,
) -> AttentionComparison:
    """Run both on every batch of images (N, H, W, 3); each gives the masks of `records` as `rows_from_masks`.

    Raises: as `verification.comparison.compare`.
    """
    return compare_by(_Tally(records, worst), reference, engine, batches, progress)


def rows_from_masks(masks: Mapping[str, np.ndarray], records: Sequence[AttentionRecord]) -> np.ndarray:
    """Return the masks (N, height, width) of all modules side by side: (N, positions of all)."""
    return np.concatenate([masks[record.name].reshape(-1, record.height * record.width) for record in records], axis=1)


def split_rows(rows: np.ndarray, records: Sequence[AttentionRecord]) -> list[np.ndarray]:
    """Return the part of each module, (N, height * width), of what `rows_from_masks` gives."""
    ends = np.cumsum([record.height * record.width for record in records])
    return np.split(rows, ends[:-1], axis=1)


def row_correlations(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each row of two (N, P) arrays: float64 (N,).

    NaN where the reference is one value everywhere, as there is nothing to follow; 0 where only the output is, as it
    follows nothing.
    """
    a, b = (
        array.astype(np.float64) - array.mean(axis=1, keepdims=True, dtype=np.float64) for array in (reference, output)
    )
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    lost = _is_flat(output) | (norms == 0)
    correlations = np.where(lost, 0, np.clip((a * b).sum(axis=1) / np.where(lost, 1, norms), -1, 1))
    return np.where(_is_flat(reference), np.nan, correlations)


def _is_flat(rows: np.ndarray) -> np.ndarray:
    return np.ptp(rows, axis=1) <= FLAT * np.abs(rows).max(axis=1)


def moved_shares(reference: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Return for each row of two (N, P) arrays which share of the attention lies elsewhere: 0..1, float64 (N,).

    Both rows are scaled to sum 1; what is more in one place is less in others, so the share is half the sum of absolute
    differences (the total variation distance). NaN where a value is negative or all are 0: no shares.
    """
    rows = [array.astype(np.float64) for array in (reference, output)]
    sums = [array.sum(axis=1, keepdims=True) for array in rows]
    first, second = (array / np.where(total > 0, total, 1) for array, total in zip(rows, sums, strict=True))
    has_shares = np.all(
        [(array.min(axis=1) >= 0) & (total[:, 0] > 0) for array, total in zip(rows, sums, strict=True)], 0
    )
    return np.where(has_shares, np.abs(first - second).sum(axis=1) / 2, np.nan)


class _Tally:
    """What is remembered from batch to batch: two numbers for each image and module, and the worst images' masks."""

    def __init__(self, records: Sequence[AttentionRecord], worst: int) -> None:
        self.images = 0
        self.records = records
        self.worst = worst
        self.errors = {record.name: ErrorSums() for record in records}
        self.correlations: list[np.ndarray] = []  # each (N, modules)
        self.shares: list[np.ndarray] = []
        self.moved: list[tuple[MovedImage, ComparedMasks]] = []

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray | None) -> None:
        del labels
        pairs = list(zip(split_rows(expected, self.records), split_rows(found, self.records), strict=True))
        for record, (reference, engine) in zip(self.records, pairs, strict=True):
            self.errors[record.name] += error_sums(reference, engine)
        correlations = np.stack([row_correlations(*pair) for pair in pairs], axis=1)
        self.correlations.append(correlations)
        self.shares.append(np.stack([moved_shares(*pair) for pair in pairs], axis=1))
        lowest = np.where(np.isnan(correlations), np.inf, correlations).min(axis=1)
        for row in np.argsort(lowest, kind="stable")[: self.worst].tolist():
            image = MovedImage(index=self.images + row, correlations=self._named(correlations[row]))
            masks = ComparedMasks(reference=self._masks(expected[row]), engine=self._masks(found[row]))
            self.moved.append((image, masks))
        self.moved = sorted(self.moved, key=lambda item: (_lowest(item[0]), item[0].index))[: self.worst]
        self.images += len(expected)

    def _masks(self, row: np.ndarray) -> dict[str, np.ndarray]:
        parts = zip(self.records, split_rows(row[None], self.records), strict=True)
        return {record.name: part.reshape(record.height, record.width).copy() for record, part in parts}

    def _named(self, correlations: np.ndarray) -> dict[str, float | None]:
        values = zip(self.records, correlations.tolist(), strict=True)
        return {record.name: None if np.isnan(value) else value for record, value in values}

    def result(self) -> AttentionComparison:
        correlations, shares = np.concatenate(self.correlations), np.concatenate(self.shares)
        return AttentionComparison(
            images=self.images,
            modules=tuple(
                self._fidelity(record, correlations[:, i], shares[:, i]) for i, record in enumerate(self.records)
            ),
            moved=tuple(image for image, _ in self.moved),
            masks={image.index: masks for image, masks in self.moved},
        )

    def _fidelity(self, record: AttentionRecord, correlations: np.ndarray, shares: np.ndarray) -> ModuleFidelity:
        known = correlations[~np.isnan(correlations)]
        has_shares = not np.isnan(shares).any()
        return ModuleFidelity(
            name=record.name,
            height=record.height,
            width=record.width,
            correlation_mean=float(known.mean()) if len(known) else None,
            correlation_worst=float(known.min()) if len(known) else None,
            flat=len(correlations) - len(known),
            relative_l2=logit_errors(self.errors[record.name]).relative_l2,
            moved_mean=100 * float(shares.mean()) if has_shares else None,
            moved_worst=100 * float(shares.max()) if has_shares else None,
        )


def _lowest(image: MovedImage) -> float:
    return min((value for value in image.correlations.values() if value is not None), default=np.inf)
