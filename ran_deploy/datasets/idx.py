"""The IDX files of MNIST and Fashion-MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ran_deploy.errors import DatasetError

UNSIGNED_BYTE = 0x08


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
    shape = tuple(int(n) for n in np.frombuffer(data[4:offset], ">u4"))
    if len(data) != offset + math.prod(shape):
        raise DatasetError(f"{path} is damaged: {len(data) - offset} bytes of data, its header says {shape}.")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
