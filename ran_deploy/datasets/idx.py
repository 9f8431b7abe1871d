"""The IDX files of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.datasets.dataset import ArrayDataset, Split
from ran_deploy.errors import DatasetError
from ran_deploy.preprocessing import Preprocessing

__all__ = ["find_idx", "read_idx"]

UNSIGNED_BYTE = 0x08
PREFIXES = {Split.TRAIN: "train", Split.TEST: "t10k"}


@dataclass(frozen=True)
class _Known:
    """One of the two data sets that share their file names: told apart by the pixels of their training images."""

    name: str
    mean: float
    std: float
    classes: tuple[str, ...]


FASHION_LABELS = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
KNOWN = (
    _Known("Fashion-MNIST", 0.2860, 0.3530, tuple(FASHION_LABELS.split(","))),
    _Known("MNIST", 0.1307, 0.3081, tuple("0123456789")),
)
SAME_STATISTICS = 0.003  # the test splits of both are within this of their training splits


def find_idx(path: Path, split: Split) -> ArrayDataset | None:
    """Return `split` of a folder with IDX files, or the images file `path` itself; None if `path` is something else.

    Files: (train|t10k)-(images-idx3|labels-idx1)-ubyte, with a dot before idx as well, plain or .gz, in the folder or
    in its sub-folder `raw`. Images without labels are fine.
    Raises: DatasetError if a file is damaged or the split asked for is missing.
    """
    if path.is_file():
        return _open(path) if "-images" in path.name and "idx3-ubyte" in path.name else None
    for folder in (path, path / "raw"):
        found = {part: _images_file(folder, prefix) for part, prefix in PREFIXES.items()}
        if wanted := found[split]:
            return _open(wanted)
        if any(found.values()):
            raise DatasetError(
                f"{folder} has no {PREFIXES[split]}-images-idx3-ubyte(.gz), only the other split's files."
            )
    return None


def _images_file(folder: Path, prefix: str) -> Path | None:
    names = (f"{prefix}-images{separator}idx3-ubyte{end}" for separator in "-." for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _open(images_file: Path) -> ArrayDataset:
    images = read_idx(images_file)
    if images.ndim != 3:
        raise DatasetError(f"{images_file} has shape {images.shape}; images (N, H, W) are needed.")
    labels_file = _labels_file(images_file)
    known = _recognised(images)
    return ArrayDataset(
        name=known.name if known else images_file.name,
        kind="IDX",
        images=images,
        labels=read_idx(labels_file) if labels_file else None,
        origins=((images_file.name, len(images)),),
        classes=known.classes if known else None,
        # Padded from 28 x 28 to the 32 x 32 that networks for small images take.
        defaults=Preprocessing(crop=(32, 32), mean=(known.mean,) * 3, std=(known.std,) * 3) if known else None,
    )


def _labels_file(images_file: Path) -> Path | None:
    """Return the file with the labels; of the two, one may be gzipped and the other not."""
    plain = images_file.name.replace("-images", "-labels").replace("idx3", "idx1").removesuffix(".gz")
    files = (images_file.with_name(name) for name in (plain, f"{plain}.gz"))
    return next((file for file in files if file.is_file()), None)


def _recognised(images: np.ndarray) -> _Known | None:
    if images.shape[1:] != (28, 28):
        return None
    mean, std = images.mean() / 255, images.std() / 255
    near = (known for known in KNOWN if max(abs(known.mean - mean), abs(known.std - std)) < SAME_STATISTICS)
    return next(near, None)


def read_idx(path: Path) -> np.ndarray:
    """Return the unsigned-byte array an IDX file holds.

    Raises: DatasetError if the file is not IDX, not of bytes, or shorter than its header says.
    Source: the MNIST database's description of the IDX format.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as exc:
        raise DatasetError(f"Cannot read {path} ({exc}). Fetch the file again.") from exc
    if len(data) < 4 or data[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise DatasetError(f"{path} is not an IDX file of unsigned bytes: it begins with {data[:4].hex()!r}.")
    rank = data[3]
    offset = 4 + 4 * rank
    if len(data) < offset:
        raise DatasetError(f"{path} is damaged: it ends within its header. Fetch the file again.")
    shape = tuple(int(n) for n in np.frombuffer(data[4:offset], ">u4"))
    if len(data) != offset + math.prod(shape):
        raise DatasetError(f"{path} is damaged: {len(data) - offset} bytes of data, its header says {shape}.")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
