"""From a path to the data set that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ran_deploy.datasets.cifar import find_cifar
from ran_deploy.datasets.dataset import Dataset, Split
from ran_deploy.datasets.folder import find_folder, find_images
from ran_deploy.datasets.idx import find_idx
from ran_deploy.datasets.npz import find_npz
from ran_deploy.errors import DatasetError

__all__ = ["open_dataset", "open_images"]

ARRAYS: tuple[Callable[[Path, Split], Dataset | None], ...] = (find_npz, find_idx, find_cifar)


def open_dataset(path: Path, split: Split) -> Dataset:
    """Return `split` of the data set at `path`.

    A data set with both splits gives the one asked for; a .npz file, an IDX images file or a folder without split
    folders is one split, whichever is asked for.
    Raises: DatasetError in one line if nothing is there, it is of no known kind, empty or damaged.
    """
    return _open(path, split, (*ARRAYS, find_folder))  # the folder last: it takes any folder with an image in it


def open_images(path: Path) -> Dataset:
    """Return the test images at `path` for what needs no labels: of folders that are no data set, all images below.

    Raises: as `open_dataset`.
    """
    return _open(path, Split.TEST, (*ARRAYS, find_images))


def _open(path: Path, split: Split, kinds: Sequence[Callable[[Path, Split], Dataset | None]]) -> Dataset:
    if not path.exists():
        raise DatasetError(f"{path} does not exist: give a folder or a file with images.")
    try:
        for find in kinds:
            dataset = find(path, split)
            if dataset is not None:
                return dataset
    except OSError as exc:
        raise DatasetError(f"{path} cannot be read ({exc}).") from exc
    raise DatasetError(
        f"{path} is no known data set. Looked for: image files, also one folder a class, with train/ and val/ or not; "
        "CIFAR-10 and CIFAR-100 (data_batch_1, train.bin, ...); IDX files (t10k-images-idx3-ubyte.gz, ...); "
        ".npz with 'images' and 'labels'."
    )
