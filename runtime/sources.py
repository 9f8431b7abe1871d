"""What a user names on the command line, as a sequence of images that are loaded when their turn comes."""

from __future__ import annotations

import glob
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np

from ran_deploy.errors import ConfigError, InputError
from ran_deploy.file_walk import files_below
from ran_deploy.images import is_image_path, is_pipe, read_image
from ran_deploy.runtime.videos import is_stream, is_video, read_frames, shown_name

__all__ = ["ArraySource", "BrokenSource", "FileSource", "Source", "expand_inputs"]

STDIN = "-"
ARRAY_SUFFIXES = frozenset({".npy", ".npz"})


class Source(Protocol):
    """One image to come. `load` may be called from any thread."""

    @property
    def name(self) -> str: ...

    def load(self) -> np.ndarray:
        """Return uint8 RGB (H, W, 3). Raises: InputError if this image cannot be had."""
        ...


@dataclass(frozen=True)
class FileSource:
    """An image file."""

    name: str

    def load(self) -> np.ndarray:
        return read_image(Path(self.name))


@dataclass(frozen=True)
class ArraySource:
    """One image of an array, or one frame of a video: (H, W, 3), or (H, W) grey."""

    name: str
    pixels: np.ndarray

    def load(self) -> np.ndarray:
        image = np.ascontiguousarray(self.pixels)
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class BrokenSource:
    """Stands where images should have come from."""

    name: str
    problem: str  # begins with the name of the file

    def load(self) -> np.ndarray:
        raise InputError(self.problem)


def expand_inputs(inputs: Sequence[str], stdin: TextIO | None = None, *, frame_stride: int = 1) -> Iterator[Source]:
    """Return the images that `inputs` name, in that order.

    An input is an image file; a folder (its image files at any depth, linked folders too); a pattern with *, ? or [...]
    (** for any depth); a .npy or .npz file (uint8, one image or a batch); a video file, camera or stream, of which
    every `frame_stride`-th frame is an image; or "-", files named on `stdin`, one a line, read as they come. Files of a
    folder or pattern come in natural order, frame2 before frame10, without pipes. A file that is missing or damaged is
    a source that fails when it is loaded.
    Raises: ConfigError, before anything is loaded, for no input, a folder that is empty or cannot be read in full, or a
    pattern that nothing matches; for a list on `stdin` that names nothing, when it ends.
    """
    if not inputs:
        raise ConfigError("No inputs: give files, folders, patterns, or - for a list on stdin.")
    return itertools.chain.from_iterable([_expanded(name, stdin, frame_stride) for name in inputs])


def _expanded(name: str, stdin: TextIO | None, stride: int) -> Iterator[Source]:
    path = Path(name)
    if not name:  # a variable that is not set; as a path it would be this folder
        raise ConfigError("An input is an empty name; expected a file, folder or pattern, or - for a list on stdin.")
    if name == STDIN:
        if stdin is None:
            raise ConfigError("Input - means a list of files on stdin, but there is no stdin here.")
        return _listed_sources(stdin, stride)
    if is_stream(name):  # its address may look like a pattern
        return _frame_sources(name, stride)
    if path.is_dir():
        files = sorted(_inputs_below(path), key=_natural_key)
        if not files:
            raise ConfigError(f"{name} holds no image, .npy or .npz files; videos are taken by name or pattern alone.")
        return itertools.chain.from_iterable(_file_sources(str(file), stride) for file in files)
    if glob.has_magic(name) and not path.exists():
        found = map(Path, glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns
        matches = sorted((path for path in found if not is_pipe(path)), key=_natural_key)
        if not matches:
            raise ConfigError(f"Nothing matches {name}.")
        return itertools.chain.from_iterable([_expanded(str(match), None, stride) for match in matches])
    return _file_sources(name, stride)


def _inputs_below(folder: Path) -> list[Path]:
    """Return the inputs in `folder`. Raises: ConfigError if part of it cannot be read, which would be missed."""
    try:
        return [file for file in files_below(folder) if _is_input(file)]
    except OSError as exc:
        raise ConfigError(f"{exc.filename} cannot be read ({exc.strerror}). Name folders that can be.") from exc


def _is_input(file: Path) -> bool:
    wanted = is_image_path(file) or file.suffix.lower() in ARRAY_SUFFIXES
    return wanted and not file.name.startswith(".") and not file.is_dir() and not is_pipe(file)


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key in which runs of digits compare as numbers."""
    parts = re.split(r"(\d+)", str(path))
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _listed_sources(stdin: TextIO, stride: int) -> Iterator[Source]:
    """Yield what the lines name. Raises: ConfigError for a list that ends without a name, or is separated by NUL."""
    is_empty = True
    for line in stdin:
        if "\0" in line:
            raise ConfigError("The list on stdin is separated by NUL; expected one file a line (find without -print0).")
        if name := line.rstrip("\r\n"):
            is_empty = False
            yield from _file_sources(name, stride)
    if is_empty:
        raise ConfigError("The list on stdin names no files; expected one a line.")


def _file_sources(name: str, stride: int) -> Iterator[Source]:
    if is_video(name):
        return _frame_sources(name, stride)
    if Path(name).suffix.lower() in ARRAY_SUFFIXES:
        return _array_sources(name)
    return iter([FileSource(name)])


def _frame_sources(name: str, stride: int) -> Iterator[Source]:
    shown = shown_name(name)
    try:
        for number, frame in read_frames(name, stride):
            yield ArraySource(f"{shown}[{number}]", frame)
    except InputError as exc:
        yield BrokenSource(shown, str(exc))


def _array_sources(name: str) -> Iterator[Source]:
    try:
        array = _read_array(Path(name))
    except InputError as exc:
        yield BrokenSource(name, f"{name}: {exc}")
        return
    if array.ndim == 3 and array.shape[2] == 3:
        yield ArraySource(name, array)
        return
    for index, pixels in enumerate(array):
        yield ArraySource(f"{name}[{index}]", pixels)


def _read_array(path: Path) -> np.ndarray:
    """Return uint8 (H, W, 3), (N, H, W, 3) or (N, H, W). A .npy file is mapped, not read. Raises: InputError."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                if "images" not in content and len(content.files) != 1:
                    raise InputError(f"holds {', '.join(content.files) or 'nothing'}; an array 'images' is needed.")
                content = content["images" if "images" in content else content.files[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as exc:
        raise InputError(f"cannot be read as an array ({exc}).") from exc
    if content.dtype != np.uint8 or not (content.ndim == 3 or (content.ndim == 4 and content.shape[3] == 3)):
        raise InputError(
            f"has type {content.dtype} and shape {content.shape}; uint8 (N, H, W, 3), (H, W, 3) or (N, H, W) is needed."
        )
    if len(content) == 0:
        raise InputError("holds no images.")
    return content
