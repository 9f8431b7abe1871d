"""Kernel timings of TensorRT's builds on this device: a file for each device and version, shared by processes.

The builder measures each kernel it may choose; what it measured before it need not measure again. Which network the
kernels are for does not matter, so one file serves all bundles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ran_deploy.bundle import sha256_of
from ran_deploy.kept_file import KeptFile

__all__ = ["TimingFile"]


class TimingFile(KeptFile):
    """`root`/timing/<key of the fingerprint>.cache."""

    def __init__(self, root: Path, fingerprint: Mapping[str, str]) -> None:
        key = sha256_of(msgspec.json.encode(sorted(fingerprint.items())))[:16]
        super().__init__(root / "timing" / f"{key}.cache", "timings")
