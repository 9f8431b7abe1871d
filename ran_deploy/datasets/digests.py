"""Digests of decoded images: copies are recognised whatever their file is called."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.datasets.dataset import Dataset
from ran_deploy.errors import DatasetError

__all__ = ["image_digest", "refuse_overlap"]


def image_digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, in hexadecimal. `image` is uint8 (H, W, 3)."""
    shape = np.asarray(image.shape, "<u4").tobytes()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()


def refuse_overlap(used: Mapping[str, Collection[str]], found: Mapping[int, str], dataset: Dataset) -> None:
    """Check that none of the images `found`, digests by index in `dataset`, was used to make what they shall prove.

    `used` has digests by what they were used for. Raises: DatasetError saying how many were, and which is the first.
    """
    for purpose, digests in used.items():
        known = frozenset(digests)
        shared = [index for index, value in found.items() if value in known]
        if not shared:
            continue
        were = "was" if len(shared) == 1 else "were"
        raise DatasetError(
            f"{len(shared):,} of {counted(len(found), 'image')} of {dataset.name} {were} used for {purpose}, "
            f"the first is {dataset.origin(shared[0])}: the accuracy would flatter. Validate with other images."
        )
