"""Kernel timings of TensorRT's builds on this device: a file for each device and version, shared by processes.

The builder measures each kernel it may choose; what it measured before it need not measure again. Which network the
kernels are for does not matter, so one file serves all bundles.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from filelock import FileLock

from ran_deploy.bundle import sha256_of

__all__ = ["TimingFile"]

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


class TimingFile:
    """`root`/timing/<key of the fingerprint>.cache: the sha256 of the timings, then the timings."""

    def __init__(self, root: Path, fingerprint: Mapping[str, str]) -> None:
        key = sha256_of(msgspec.json.encode(sorted(fingerprint.items())))[:16]
        self.path = root / "timing" / f"{key}.cache"

    def read(self) -> bytes:
        """Return the timings, none where there is no file; a damaged file counts as none, with a warning."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as exc:
            logger.warning("ignoring the timing cache %s (%s)", self.path, exc.strerror or exc)
            return b""
        timings = content[_DIGEST_BYTES:]
        if hashlib.sha256(timings).digest() == content[:_DIGEST_BYTES]:
            return timings
        logger.warning("ignoring the timing cache %s: it is damaged, and replaced after this build", self.path)
        return b""

    def update(self, merged: Callable[[bytes], bytes]) -> None:
        """Replace the timings by `merged` of those there are now, and keep other processes out meanwhile.

        A folder that cannot be written only warns: the next build measures again.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                timings = merged(self.read())
                partial = self.path.with_suffix(".partial")
                partial.write_bytes(hashlib.sha256(timings).digest() + timings)
                partial.replace(self.path)
        except OSError as exc:
            logger.warning("the timings are not kept: cannot write %s (%s)", self.path, exc.strerror or exc)
