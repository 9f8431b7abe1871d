"""Digests of decoded images: copies are recognised whatever their file is called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ran_deploy.datasets.dataset import Dataset
from ran_deploy.errors import DatasetError, InputError

__all__ = ["digests", "image_digest", "refuse_overlap"]


def image_digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, in hexadecimal. `image` is uint8 (H, W, 3)."""
    shape = np.asarray(image.shape, "<u4").tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()


def digests(dataset: Dataset, indices: Iterable[int]) -> list[str]:
    """Return the digest of each image in `indices`. Raises: InputError for a damaged image."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda index: image_digest(dataset.image(index)), indices))


def refuse_overlap(calibration_digests: Collection[str], dataset: Dataset) -> None:
    """Check that no image of `dataset` was calibrated with; damaged images are passed over.

    Raises: DatasetError saying how many were, and which is the first.
    """
    known = frozenset(calibration_digests)

    def is_known(index: int) -> bool:
        try:
            return image_digest(dataset.image(index)) in known
        except InputError:
            return False

    if not known:
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shared = [index for index, found in enumerate(pool.map(is_known, range(len(dataset)))) if found]
    if shared:
        raise DatasetError(
            f"{len(shared)} of the {len(dataset)} images of {dataset.name} were used for calibration, the first is "
            f"{dataset.origin(shared[0])}: the accuracy would flatter. Validate with other images."
        )
