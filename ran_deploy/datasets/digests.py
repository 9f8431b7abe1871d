"""Digests of decoded images: copies are recognised whatever their file is called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ran_deploy.datasets.dataset import Dataset
from ran_deploy.errors import DatasetError, InputError

__all__ = ["digests", "image_digest", "refuse_overlap"]


def image_digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, in hexadecimal. `image` is uint8 (H, W, 3)."""
    shape = np.asarray(image.shape, "<u4").tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()


def digests(
    dataset: Dataset, indices: Iterable[int], progress: Callable[[int], None] = lambda done: None
) -> dict[int, str]:
    """Return the digest of each image in `indices` that can be read, by index and in their order.

    `progress` hears the number of images done so far.
    """

    def digest(index: int) -> tuple[int, str | None]:
        try:
            return index, image_digest(dataset.image(index))
        except InputError:
            return index, None

    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (index, value) in enumerate(pool.map(digest, indices), 1):
            progress(done)
            if value is not None:
                found[index] = value
    return found


def refuse_overlap(calibration_digests: Collection[str], found: Mapping[int, str], dataset: Dataset) -> None:
    """Check that none of the images `found`, digests by index in `dataset`, was calibrated with.

    Raises: DatasetError saying how many were, and which is the first.
    """
    known = frozenset(calibration_digests)
    shared = [index for index, value in found.items() if value in known]
    if shared:
        raise DatasetError(
            f"{len(shared)} of {len(found)} images of {dataset.name} were used for calibration, the first is "
            f"{dataset.origin(shared[0])}: the accuracy would flatter. Validate with other images."
        )
