"""What every data set offers, and the one implementation for those that are arrays in memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import DatasetError, InputError
from ran_deploy.preprocessing import Preprocessing

__all__ = ["ArrayDataset", "Dataset", "Split", "unreadable"]


class Split(str, Enum):
    """Which part of a data set is meant: TRAIN calibrates, TEST validates."""

    TRAIN = "train"
    TEST = "test"


class Dataset(Protocol):
    """Images by index, with labels where they are known.

    `kind` says how it is stored. `classes` are the names in label order. `defaults` is the recipe this data set is
    customarily used with: None where nothing is known. Several threads may read at once.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def defaults(self) -> Preprocessing | None: ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Return uint8 RGB (H, W, 3). Raises: InputError if this one image is damaged."""
        ...

    def label(self, index: int) -> int | None:
        """Return the class index, None where it is not known."""
        ...

    def origin(self, index: int) -> str:
        """Return where the image stands, for messages: a file name, or a file and an index."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArrayDataset:
    """Images (N, H, W) grey or (N, H, W, 3) RGB in memory; `origins` are the files and how many images each gave."""

    name: str
    kind: str
    images: np.ndarray
    labels: np.ndarray | None
    origins: tuple[tuple[str, int], ...]
    classes: tuple[str, ...] | None = None
    defaults: Preprocessing | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))):
            raise DatasetError(
                f"{self.name} ({self.kind}) holds images of type {self.images.dtype} and shape {shape}; "
                "uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) is needed."
            )
        if self.images.size == 0:
            raise DatasetError(f"{self.name} ({self.kind}) holds no images: its shape is {shape}.")
        if self.labels is not None and (
            self.labels.shape != (len(self.images),) or self.labels.dtype.kind not in "iu" or self.labels.min() < 0
        ):
            raise DatasetError(
                f"{self.name} ({self.kind}) has labels of type {self.labels.dtype} and shape {self.labels.shape} for "
                f"{counted(len(self.images), 'image')}; one class index, 0 or more, for each is needed."
            )

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> np.ndarray:
        image = self.images[index]
        return np.array(np.broadcast_to(image.reshape(*image.shape[:2], -1), (*image.shape[:2], 3)), order="C")

    def label(self, index: int) -> int | None:
        return None if self.labels is None else int(self.labels[index])

    def origin(self, index: int) -> str:
        for file_name, count in self.origins:
            if index < count:
                return f"{file_name}[{index}]"
            index -= count
        raise IndexError(index)


def unreadable(dataset: Dataset, index: int, error: InputError) -> tuple[str, str]:
    """Return the origin of an image that raised `error`, and why: without the path that the message may begin with."""
    origin = dataset.origin(index)
    return origin, str(error).rpartition(f"{origin}: ")[2]
