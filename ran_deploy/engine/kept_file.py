"""A file of bytes that processes share and that is checked when it is read: what a device made and may make again."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ran_deploy.whole_file import replace_file

__all__ = ["KeptFile"]

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


class KeptFile:
    """The sha256 of some bytes, then the bytes. `what` they are is for the warnings, as in 'timings'."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what

    def read(self) -> bytes:
        """Return the bytes, none where there is no file; a damaged file counts as none, with a warning."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as exc:
            logger.warning("ignoring the %s in %s (%s)", self.what, self.path, exc.strerror or exc)
            return b""
        data = content[_DIGEST_BYTES:]
        if hashlib.sha256(data).digest() == content[:_DIGEST_BYTES]:
            return data
        logger.warning("ignoring the %s in %s: the file is damaged, and replaced by new ones", self.what, self.path)
        return b""

    def update(self, merged: Callable[[bytes], bytes]) -> None:
        """Replace the bytes by `merged` of those there are now, and keep other processes out meanwhile.

        A folder that cannot be written only warns: they are made again.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path.with_suffix(".lock")):
                data = merged(self.read())
                replace_file(self.path, hashlib.sha256(data).digest() + data)
        except OSError as exc:
            logger.warning("the %s are not kept: cannot write %s (%s)", self.what, self.path, exc.strerror or exc)
