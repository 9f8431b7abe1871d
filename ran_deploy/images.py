"""Reading image files: bytes in, uint8 RGB out, and one clear line for everything that is not a whole image."""

from __future__ import annotations

import importlib
import os
import stat
from pathlib import Path
from types import ModuleType

import numpy as np

from ran_deploy.counts import counted
from ran_deploy.errors import BackendUnavailableError, InputError
from ran_deploy.image_headers import JPEG_START, PNG_SIGNATURE, read_jpeg, read_png

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "decode_image", "import_cv2", "is_image_path", "is_pipe", "read_image"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 2**28  # 0.8 GB decoded: beyond any camera, and a small file can claim more to exhaust memory
MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits a pixel, as good as uncompressed


def import_cv2() -> ModuleType:
    """Return OpenCV, with its size limit set and its own warnings off: ours replace them.

    Raises: BackendUnavailableError if it cannot be imported.
    """
    # Both are read only once, when the library is loaded.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        return importlib.import_module("cv2")
    except ImportError as exc:
        hint = "Install it with: pip install 'ran-deploy[image]'"
        raise BackendUnavailableError(f"Cannot import cv2, which reads images ({exc}). {hint}") from exc


def is_image_path(path: Path) -> bool:
    """Say whether the name of `path` is that of an image; the content is not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def is_pipe(path: Path) -> bool:
    """Say whether `path` is a pipe or socket: to read one may wait for ever, so none is taken that was not named."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # reading it fails, and says why
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def read_image(path: Path) -> np.ndarray:
    """Return the image in a file as uint8 RGB (H, W, 3). Raises: InputError, naming the file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISCHR(found.st_mode):  # /dev/zero has no end
                raise InputError(f"{path}: is a device; expected an image file, or a camera such as /dev/video0.")
            if found.st_size > MAX_BYTES:
                raise InputError(
                    f"{path}: the file has {found.st_size:,} bytes; at most {MAX_BYTES:,} are read. Shrink the image."
                )
            data = file.read()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror}).") from exc
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Return an encoded image as uint8 RGB (H, W, 3), turned upright as its EXIF orientation says.

    Grey becomes three equal channels, alpha is dropped with the colours under it kept (a TIFF's are premultiplied by
    libtiff), and of 16-bit channels the high byte is kept.
    Raises: InputError, beginning with `name`, if `data` is empty, no image, incomplete or of more than MAX_PIXELS.
    Damaged pixels in an otherwise whole JPEG are made up for by libjpeg, which writes a line of its own to stderr.
    """
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes).")
    data = _checked(data, name)
    cv2 = import_cv2()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        if "CV_IO_MAX_IMAGE" in str(exc):
            raise InputError(f"{name}: has more than {MAX_PIXELS} pixels. Shrink or cut the image.") from exc
        image = None
    if image is None:
        raise InputError(
            f"{name}: not an image that OpenCV can decode, or damaged ({counted(len(data), 'byte')}, {_kind(data)})."
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _kind(data: bytes) -> str:
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    return "JPEG" if data.startswith(JPEG_START) else f"begins with {data[:8].hex(' ')}"


def _checked(data: bytes, name: str) -> bytes:
    """Refuse PNG and JPEG files that are too large or cut short; OpenCV before 5 returns the latter half grey.

    Returns what to decode.
    """
    if data.startswith(PNG_SIGNATURE):
        header = read_png(data)
    elif data.startswith(JPEG_START):
        header = read_jpeg(data)
    else:
        return data
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: its header says {width}x{height}; at most {MAX_PIXELS} pixels are read. Shrink it.")
    if header.damage:
        raise InputError(f"{name}: the {_kind(data)} file {header.damage}. Copy or save it again.")
    if width == 0 or height == 0:
        raise InputError(f"{name}: its header says {width}x{height}, an image without pixels. Save it again.")
    return header.data
