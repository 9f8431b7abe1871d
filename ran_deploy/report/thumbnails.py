"""Small copies of images that travel inside a page."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

__all__ = ["LONGEST_SIDE", "png", "png_data_uri", "thumbnail"]

LONGEST_SIDE = 160


def png_data_uri(image: np.ndarray) -> str:
    """Return a data URI of a PNG of `image`, uint8 RGB (H, W, 3), made small."""
    return "data:image/png;base64," + base64.b64encode(png(thumbnail(image))).decode("ascii")


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return `image`, uint8 (H, W, 3), as means of square blocks, so that no side exceeds LONGEST_SIDE.

    Rows and columns that fill no whole block are left out.
    """
    block = -(-max(image.shape[:2]) // LONGEST_SIDE)
    block = min(block, *image.shape[:2])
    height, width = (side // block for side in image.shape[:2])
    blocks = image[: height * block, : width * block].reshape(height, block, width, block, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """Return `image`, uint8 RGB (H, W, 3), as a PNG file: unfiltered rows, which needs no imaging library.

    Source: PNG (Third Edition), W3C, sections 5 and 11.
    """
    height, width = image.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with filter type 0
    rows[:, 1:] = image.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
