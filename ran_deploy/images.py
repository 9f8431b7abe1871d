"""Reading image files: bytes in, uint8 RGB out, and one clear line for everything that is not a whole image."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np

from ran_deploy.errors import BackendUnavailableError, InputError

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "decode_image", "import_cv2", "is_image_path", "read_image"]

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 2**28  # 0.8 GB decoded: beyond any camera, and a small file can claim more to exhaust memory

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the markers that carry the size, ITU-T T.81 table B.1
JPEG_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


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


def read_image(path: Path) -> np.ndarray:
    """Return the image in a file as uint8 RGB (H, W, 3). Raises: InputError, naming the file."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: cannot be read ({exc.strerror}).") from exc
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Return an encoded image as uint8 RGB (H, W, 3), turned upright as its EXIF orientation says.

    Grey becomes three equal channels, alpha is dropped with the colours under it kept (a TIFF's are premultiplied by
    libtiff), and of 16-bit channels the high byte is kept.
    Raises: InputError, beginning with `name`, if `data` is empty, no image, incomplete or of more than MAX_PIXELS.
    """
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes).")
    _check_header(data, name)
    cv2 = import_cv2()
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as exc:
        if "CV_IO_MAX_IMAGE" in str(exc):
            raise InputError(f"{name}: has more than {MAX_PIXELS} pixels. Shrink or cut the image.") from exc
        image = None
    if image is None:
        raise InputError(f"{name}: not an image that OpenCV can decode, or damaged ({len(data)} bytes, {_kind(data)}).")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _kind(data: bytes) -> str:
    if data.startswith(PNG_SIGNATURE):
        return "PNG"
    return "JPEG" if data.startswith(JPEG_START) else f"begins with {data[:8].hex(' ')}"


def _check_header(data: bytes, name: str) -> None:
    """Refuse PNG and JPEG files that are too large or cut short; OpenCV before 5 returns the latter half grey."""
    if data.startswith(PNG_SIGNATURE):
        size, complete = _inspect_png(data)
    elif data.startswith(JPEG_START):
        size, complete = _inspect_jpeg(data)
    else:
        return
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: its header says {width}x{height}; at most {MAX_PIXELS} pixels are read. Shrink it.")
    if not complete:
        raise InputError(
            f"{name}: the {_kind(data)} file is incomplete (cut short after {len(data)} bytes). Copy it again."
        )


def _inspect_png(data: bytes) -> tuple[tuple[int, int], bool]:
    """Return (width, height) and whether the last chunk, IEND, is there. Source: PNG specification, section 5."""
    position, size = len(PNG_SIGNATURE), (0, 0)
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if kind == b"IHDR":
            size = _big_endian(data, position + 8, 4), _big_endian(data, position + 12, 4)
        if kind == b"IEND":
            return size, True
        position += 12 + length
    return size, False


def _inspect_jpeg(data: bytes) -> tuple[tuple[int, int], bool]:
    """Return (width, height) and whether the end marker follows the first scan. Source: ITU-T T.81, annex B.

    The segments before that scan are walked over, as a thumbnail inside them has an end marker of its own.
    """
    position, size = 2, (0, 0)
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return size, False
        marker = data[position + 1]
        if marker == 0xFF or marker in JPEG_WITHOUT_LENGTH:  # a fill byte, or a marker alone
            position += 1 if marker == 0xFF else 2
            continue
        if marker in JPEG_FRAMES:
            size = _big_endian(data, position + 7, 2), _big_endian(data, position + 5, 2)
        if marker == JPEG_SCAN:
            return size, data.rfind(JPEG_END) > position
        position += 2 + _big_endian(data, position + 2, 2)
    return size, False


def _big_endian(data: bytes, start: int, count: int) -> int:
    return int.from_bytes(data[start : start + count], "big")
