"""A .npz file with `images` and, where known, `labels`: one split, whichever is asked for."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ran_deploy.datasets.dataset import ArrayDataset, Split
from ran_deploy.errors import DatasetError

__all__ = ["find_npz"]


def find_npz(path: Path, split: Split) -> ArrayDataset | None:
    """Return the data set in a .npz file, None if `path` is something else.

    Arrays: `images` uint8 (N, H, W) or (N, H, W, 3) RGB, `labels` integers (N,), optional `classes` names.
    Raises: DatasetError if the file is damaged or its arrays are of other types; pickled objects are never loaded.
    """
    if not path.is_file() or path.suffix.lower() != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("images", "labels", "classes") if key in archive}
            found = ", ".join(archive.files) or "nothing"
    except (TypeError, AttributeError) as exc:  # one array alone has nothing to close
        raise DatasetError(f"{path} is no .npz but a single array. Write it with numpy.savez.") from exc
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as exc:
        raise DatasetError(f"{path} cannot be read as .npz ({exc}). Write it with numpy.savez.") from exc
    except MemoryError as exc:  # a header of 80 bytes can announce any size
        raise DatasetError(f"{path} holds more than memory does ({exc}). Cut it into several files.") from exc
    if "images" not in arrays:
        raise DatasetError(f"{path} holds {found}; an array named 'images' is needed, and 'labels' beside it.")
    images, classes = arrays["images"], arrays.get("classes")
    return ArrayDataset(
        name=path.name,
        kind="npz",
        images=images,
        labels=arrays.get("labels"),
        origins=((path.name, len(images) if images.ndim else 0),),
        classes=None if classes is None else tuple(str(name) for name in np.atleast_1d(classes)),
    )
