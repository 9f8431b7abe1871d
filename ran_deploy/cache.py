"""Engines that this device made from a bundle, kept outside it: bundles stay on read-only media.

An entry belongs to one bundle digest and one fingerprint, so an upgrade of the device simply misses it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock

from ran_deploy.bundle import sha256_of
from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.manifest import BatchProfile

__all__ = ["CachedEngine", "EngineCache", "default_cache_dir"]

logger = logging.getLogger(__name__)


def default_cache_dir() -> Path:
    """Return $XDG_CACHE_HOME/ran-deploy, or ~/.cache/ran-deploy."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ran-deploy"


@dataclass(frozen=True, kw_only=True)
class CachedEngine:
    """An engine made here before, the batches it takes, and whether it passed the golden self-test here."""

    data: bytes
    batch: BatchProfile
    proven: bool


@dataclass(frozen=True, kw_only=True)
class _Entry:
    sha256: str
    fingerprint: dict[str, str]
    batch: BatchProfile
    proven: bool


class EngineCache:
    """Engines of one bundle under `root`/<bundle digest>/<backend>-<device key>/."""

    def __init__(self, root: Path, bundle_digest: str) -> None:
        self._folder = root / bundle_digest

    def get(self, backend: str, fingerprint: Mapping[str, str]) -> CachedEngine | None:
        """Return the engine made here before, or None if there is none or it was damaged."""
        folder = self._entry_folder(backend, fingerprint)
        try:
            entry = msgspec.json.decode((folder / "entry.json").read_bytes(), type=_Entry)
            engine = (folder / "engine.plan").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, ConfigError) as exc:
            logger.warning("ignoring the damaged cache entry %s (%s)", folder, exc)
            return None
        if sha256_of(engine) != entry.sha256:
            logger.warning("ignoring the damaged cache entry %s (its sha256 differs)", folder)
            return None
        return CachedEngine(data=engine, batch=entry.batch, proven=entry.proven)

    def check(self) -> None:
        """Raise OutputError now if an engine could not be kept later."""
        probe = self._folder / f".probe-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as exc:
            raise OutputError(
                f"Cannot write the cache {self._folder} ({exc.strerror or exc}). Give another --cache-dir."
            ) from exc

    def put(self, backend: str, fingerprint: Mapping[str, str], engine: CachedEngine) -> Path | None:
        """Keep an engine and return its folder; None, with a warning, where the cache cannot be written."""
        folder = self._entry_folder(backend, fingerprint)
        entry = _Entry(
            sha256=sha256_of(engine.data), fingerprint=dict(fingerprint), batch=engine.batch, proven=engine.proven
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                # The entry vouches for the engine, so it is replaced last; a kill in between is a miss.
                _replace(folder / "engine.plan", engine.data)
                _replace(folder / "entry.json", msgspec.json.encode(entry))
        except OSError as exc:
            logger.warning("the engine is not kept: cannot write %s (%s)", folder, exc.strerror or exc)
            return None
        return folder

    def _entry_folder(self, backend: str, fingerprint: Mapping[str, str]) -> Path:
        device_key = sha256_of(msgspec.json.encode(sorted(fingerprint.items())))[:16]
        return self._folder / f"{backend}-{device_key}"


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)
