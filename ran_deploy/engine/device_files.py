"""Files beside the engines in the cache that spare a device work it has done before, shared by processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ran_deploy.engine.cache import device_key
from ran_deploy.engine.kept_file import KeptFile

__all__ = ["kernel_file", "timing_file"]


def timing_file(root: Path, fingerprint: Mapping[str, str]) -> KeptFile:
    """Return the timings of TensorRT's builds on this device, `root`/timing/<key of the fingerprint>.cache.

    Its builder measures each kernel it may choose. Which network that is for does not matter, so one file serves all
    bundles.
    """
    return KeptFile(root / "timing" / f"{device_key(fingerprint)}.cache", "timings")


def kernel_file(root: Path, bundle_digest: str, backend: str, device: Mapping[str, str]) -> KeptFile:
    """Return the kernels that a backend compiles when it loads the engine of a bundle on a device, driver included."""
    return KeptFile(root / bundle_digest / f"{backend}-kernels-{device_key(device)}", "compiled kernels")
