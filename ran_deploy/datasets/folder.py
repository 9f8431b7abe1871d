"""Image files in folders: one folder a class, or all in one without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.datasets.dataset import Split
from ran_deploy.errors import DatasetError
from ran_deploy.file_walk import files_below
from ran_deploy.images import is_image_path, is_pipe, read_image
from ran_deploy.preprocessing import Preprocessing

__all__ = ["FolderDataset", "find_folder", "find_images"]

# The first that exists is taken: with val/ and test/ both there, test/ stays untouched.
SPLIT_FOLDERS = {Split.TRAIN: ("train", "training"), Split.TEST: ("val", "valid", "validation", "test")}


@dataclass(frozen=True, kw_only=True)
class FolderDataset:
    """Image files under `root`, each decoded when asked for."""

    name: str
    root: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    kind: str = "image folder"
    defaults: Preprocessing | None = None

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        return read_image(self.files[index])

    def label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]

    def origin(self, index: int) -> str:
        return self.files[index].relative_to(self.root).as_posix()


def find_folder(path: Path, split: Split) -> FolderDataset | None:
    """Return the images under `path`, None if there are none.

    With sub-folders for splits (train/ and val/, valid/, validation/ or test/), `split` chooses; else all is one split.
    Sub-folders with images are the classes, numbered in sorted order as torchvision's ImageFolder does; a class that
    only the other split has keeps its number. Images beside class folders are left out; images alone have no labels.
    Raises: DatasetError if there are split folders but not the one asked for, or if it is empty.
    """
    if not path.is_dir():
        return None
    splits = _split_folders(path)
    if not splits:
        return _open(path, path.name, [path])
    if split not in splits:
        wanted = "/, ".join(SPLIT_FOLDERS[split])
        found = ", ".join(f"{folder.name}/" for folder in splits.values())
        raise DatasetError(f"{path} has {found} but none of {wanted}/. Give the folder with the images itself.")
    root = splits[split]
    dataset = _open(root, f"{path.name}/{root.name}", list(splits.values()))
    if dataset is None:
        raise DatasetError(f"{root} holds no images (.jpg, .png and others were looked for).")
    return dataset


def find_images(path: Path, split: Split) -> FolderDataset | None:
    """Return all images below `path` in folders of any depth, without labels; None if there are none.

    With sub-folders for splits, only those of `split`, which raises as `find_folder` does where it is missing.
    """
    if not path.is_dir():
        return None
    if splits := _split_folders(path):
        if split not in splits:
            return find_folder(path, split)
        path = splits[split]
    files = tuple(_images_below(path))
    return FolderDataset(name=path.name, root=path, files=files, labels=None, classes=None) if files else None


def _split_folders(path: Path) -> dict[Split, Path]:
    """Return the folder of each split, nothing if `path` is not split.

    One split's name alone is no proof, as a class may be named "train": then every sub-folder must be a split's.
    """
    folders = {folder.name.lower(): folder for folder in _subfolders(path)}
    known = {
        split: next((folders[name] for name in names if name in folders), None)
        for split, names in SPLIT_FOLDERS.items()
    }
    found = {split: folder for split, folder in known.items() if folder is not None}
    all_names = {name for names in SPLIT_FOLDERS.values() for name in names}
    return found if len(found) == len(SPLIT_FOLDERS) or set(folders) <= all_names else {}


def _open(root: Path, name: str, splits: list[Path]) -> FolderDataset | None:
    """Open the images under `root`; the classes are those of all `splits`, as one may lack some."""
    by_class = {folder.name: _images_below(folder) for folder in _subfolders(root)}
    if any(by_class.values()):
        classes = sorted({folder.name for split in splits for folder in _subfolders(split)})
        numbers = {name: number for number, name in enumerate(classes)}
        labelled = [(file, numbers[name]) for name in sorted(by_class) for file in by_class[name]]
        files, labels = zip(*labelled, strict=True)
        return FolderDataset(name=name, root=root, files=files, labels=labels, classes=tuple(classes))
    flat = tuple(sorted(file for file in root.iterdir() if _is_image(file)))
    return FolderDataset(name=name, root=root, files=flat, labels=None, classes=None) if flat else None


def _subfolders(path: Path) -> list[Path]:
    return [folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")]


def _images_below(folder: Path) -> list[Path]:
    """Return the images of one class, in folders of any depth. Raises: OSError for a folder that cannot be read."""
    return sorted(filter(_is_image, files_below(folder)))


def _is_image(file: Path) -> bool:
    hidden = file.name.startswith(".")  # "._x.jpg" is what macOS leaves beside x.jpg
    return is_image_path(file) and not hidden and not is_pipe(file)
