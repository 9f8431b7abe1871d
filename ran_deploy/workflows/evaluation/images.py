"""The images engines are validated on: each tried beforehand, so that a broken file costs one image and not the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.datasets import Dataset, image_digest, refuse_overlap, select_indices, unreadable
from ran_deploy.datasets.pairs import ImagePairs
from ran_deploy.errors import DatasetError, InputError
from ran_deploy.manifest import Manifest
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.report.schema import UnreadableImage

__all__ = ["BATCH", "ReadImage", "ValidationImages", "copies_warnings", "read_images", "try_image", "used_images"]

MANY_COPIES = 0.01  # narrows an interval by less than its last digit
BATCH = 32  # images in memory at a time; engines split it as their profile demands


@dataclass(frozen=True, kw_only=True)
class ValidationImages:
    """The images of a data set that can be used: `indices` are their positions in it, `unreadable` the others.

    `digests` tell the images by their content, in the same order.
    `labels` says how its labels became the bundle's classes, where that was not by name. `pairs`, for embeddings,
    number the images as `batches` gives them, and `pairs_note` says where they come from.
    """

    dataset: Dataset
    recipe: Preprocessing
    indices: tuple[int, ...]
    unreadable: tuple[UnreadableImage, ...]
    digests: tuple[str, ...] = ()
    labels: str | None = None
    pairs: ImagePairs | None = None
    pairs_note: str | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labelled(self) -> bool:
        return self.dataset.label(self.indices[0]) is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be read before any figure."""
        copies = len(self.digests) - len(set(self.digests))
        return copies_warnings(copies, len(self)) if copies > MANY_COPIES * len(self) else ()

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield prepared images, uint8 (N, H, W, 3), with their labels: the same batches on every call."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self), BATCH):
                chosen = self.indices[start : start + BATCH]
                images = np.stack(list(pool.map(self._prepared, chosen)))
                labels = [self.dataset.label(index) for index in chosen]
                yield images, np.array(labels) if self.labelled else None

    def _prepared(self, index: int) -> np.ndarray:
        try:
            return prepare(self.dataset.image(index), self.recipe)
        except InputError as exc:
            raise DatasetError(
                f"An image that could be read before cannot be any more: {exc} "
                "Validate again when nothing changes the data."
            ) from exc


def copies_warnings(copies: int, images: int) -> tuple[str, ...]:
    """Return what is to be said of `images` of which so many are copies of others: one line, or none."""
    if not copies:
        return ()
    are = "is an exact copy of another and tells" if copies == 1 else "are exact copies of others and tell"
    return (
        f"{copies:,} of {counted(images, 'image')} {are} nothing new: interval and bound count more images than prove "
        "them. Remove copies.",
    )


def used_images(*manifests: Manifest) -> dict[str, tuple[str, ...]]:
    """Return digests of the images that made these bundles, by what they were used for: they cannot judge them."""
    return {
        "calibration": tuple(d for m in manifests if m.calibration for d in m.calibration.image_sha256),
        "deciding what stays in float": tuple(d for m in manifests if m.budget for d in m.budget.image_sha256),
    }


def read_images(
    dataset: Dataset,
    recipe: Preprocessing,
    *,
    limit: int | None = None,
    indices: Sequence[int] | None = None,
    used: Mapping[str, Collection[str]] | None = None,
    also: Preprocessing | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ValidationImages:
    """Read and prepare every image once, or `limit` of them that are balanced over classes, or those at `indices`.

    `used` are digests of images that made the engine, by what for; `also` is another recipe that images must be fit
    for; `progress` hears the images done, of all.
    Raises: DatasetError if one of those is among the images, or if none can be read.
    """
    indices = sorted(select_indices(dataset, limit or len(dataset))) if indices is None else indices
    found: dict[int, str] = {}
    unreadable: list[UnreadableImage] = []
    with ThreadPoolExecutor() as pool:
        for done, tried in enumerate(pool.map(lambda index: _digest(dataset, index, recipe, also), indices), 1):
            progress(done, len(indices))
            if isinstance(tried, UnreadableImage):
                unreadable.append(tried)
            else:
                found[indices[done - 1]] = tried
    if not found:
        first = unreadable[0]
        raise DatasetError(
            f"No image of {dataset.name} can be read; give other --data. The first is {first.file}: {first.reason}"
        )
    refuse_overlap(used or {}, found, dataset)
    return ValidationImages(
        dataset=dataset,
        recipe=recipe,
        indices=tuple(found),
        unreadable=tuple(unreadable),
        digests=tuple(found.values()),
    )


@dataclass(frozen=True)
class ReadImage:
    """An image as prepared for the engine, uint8 (H, W, 3), and the digest of what it was before."""

    prepared: np.ndarray
    digest: str


def try_image(
    dataset: Dataset, index: int, recipe: Preprocessing, also: Preprocessing | None = None
) -> ReadImage | UnreadableImage:
    """Return an image that can be read and prepared, by the recipe `also` as well; of any other, why not."""
    try:
        image = dataset.image(index)
        if also is not None:
            prepare(image, also)
        return ReadImage(prepare(image, recipe), image_digest(image))
    except InputError as exc:
        origin, reason = unreadable(dataset, index, exc)
        return UnreadableImage(file=origin, reason=reason)


def _digest(dataset: Dataset, index: int, recipe: Preprocessing, also: Preprocessing | None) -> str | UnreadableImage:
    """Return the digest of an image, without its pixels: those of a whole data set may be waiting here."""
    tried = try_image(dataset, index, recipe, also)
    return tried if isinstance(tried, UnreadableImage) else tried.digest
