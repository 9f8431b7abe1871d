"""The images of a data set in a random order, read one batch after another for as long as a test asks for more."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ran_deploy.datasets import Dataset, refuse_overlap
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.report.schema import UnreadableImage
from ran_deploy.workflows.evaluation.images import BATCH, ReadImage, ValidationImages, try_image

__all__ = ["ShuffledImages"]


class ShuffledImages:
    """Images without labels in the order that `seed` gives, at most `limit`; those that cannot be read are passed over.

    `copies` counts images that are exactly another one that was taken: they tell nothing new.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Preprocessing,
        *,
        seed: int,
        limit: int | None = None,
        used: Mapping[str, Collection[str]] | None = None,
        also: Preprocessing | None = None,
    ) -> None:
        self.copies = 0
        self._dataset = dataset
        self._recipe = recipe
        self._also = also
        self._used = {purpose: frozenset(digests) for purpose, digests in (used or {}).items()}
        self._order: list[int] = np.random.default_rng(seed).permutation(len(dataset)).tolist()
        self._limit = min(limit or len(dataset), len(dataset))
        self._tried = 0
        self._waiting: list[tuple[int, ReadImage]] = []  # read, but not yet part of a batch
        self._taken: list[int] = []
        self._digests: set[str] = set()
        self._unreadable: list[UnreadableImage] = []

    @property
    def available(self) -> int:
        """How many images there are to take, less those that have turned out not to be readable."""
        return min(self._limit, len(self._order) - len(self._unreadable))

    @property
    def taken(self) -> ValidationImages:
        """The images that were part of a batch so far, in their order."""
        return ValidationImages(
            dataset=self._dataset,
            recipe=self._recipe,
            indices=tuple(self._taken),
            unreadable=tuple(self._unreadable),
        )

    def batches(self) -> Generator[np.ndarray, None, None]:
        """Yield prepared images, uint8 (N, H, W, 3): those taken before in the same batches, then new ones.

        Raises: DatasetError for an image that made the engine, or if none can be read.
        """
        for images, _ in self.taken.batches():
            yield images
        with ThreadPoolExecutor() as pool:
            while batch := self._next_batch(pool):
                self._taken += [index for index, _ in batch]
                for _, image in batch:
                    self.copies += image.digest in self._digests
                    self._digests.add(image.digest)
                yield np.stack([image.prepared for _, image in batch])
        if not self._taken:
            first = self._unreadable[0]
            raise DatasetError(
                f"No image of {self._dataset.name} can be read; give other images. "
                f"The first is {first.file}: {first.reason}"
            )

    def _next_batch(self, pool: ThreadPoolExecutor) -> list[tuple[int, ReadImage]]:
        wanted = min(BATCH, self._limit - len(self._taken))
        while len(self._waiting) < wanted and self._tried < len(self._order):
            self._read(pool, self._order[self._tried : self._tried + wanted])
        batch, self._waiting = self._waiting[:wanted], self._waiting[wanted:]
        return batch

    def _read(self, pool: ThreadPoolExecutor, indices: list[int]) -> None:
        read: dict[int, ReadImage] = {}
        tried = pool.map(lambda index: try_image(self._dataset, index, self._recipe, self._also), indices)
        for index, image in zip(indices, tried, strict=True):
            if isinstance(image, UnreadableImage):
                self._unreadable.append(image)
            else:
                read[index] = image
        self._tried += len(indices)
        refuse_overlap(self._used, {index: image.digest for index, image in read.items()}, self._dataset)
        self._waiting += read.items()
