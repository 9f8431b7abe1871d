"""Engines that this device made from a bundle, kept outside it: bundles stay on read-only media.

An entry belongs to one bundle digest and to what its engine requires: as a rule the fingerprint of the device that made
it, so that an upgrade simply misses it. Engines built to be compatible are found by every device that meets them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from filelock import FileLock

from ran_deploy.bundle import sha256_of
from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.engine.padding import Padding
from ran_deploy.engine.requirements import is_range, misfits
from ran_deploy.engine.traits import EngineTraits
from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.manifest import BatchProfile
from ran_deploy.whole_file import replace_file

__all__ = ["CachedEngine", "EngineCache", "default_cache_dir", "device_key"]

logger = logging.getLogger(__name__)

KEY_LENGTH = 16
ENGINE_FILE, ENTRY_FILE = "engine.plan", "entry.json"


def default_cache_dir() -> Path:
    """Return $XDG_CACHE_HOME/ran-deploy, or ~/.cache/ran-deploy."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ran-deploy"


@dataclass(frozen=True, kw_only=True)
class CachedEngine:
    """An engine, the batches it takes, what it requires of a device, and whether it passed the golden self-test here.

    `required` holds values and ranges: see `requirements`. `refit_from` is the graph that an engine without weights
    gets them from whenever it is loaded; None for one that has its own. `half_pixel`: it was built from a graph with
    half-pixel sample points in place of aligned corners, whose outputs are others. `padding` says which batches are
    padded.
    """

    data: bytes
    batch: BatchProfile
    required: Mapping[str, str]
    proven: bool
    refit_from: bytes | None = None
    half_pixel: bool = False
    padding: tuple[Padding, ...] = ()

    @property
    def traits(self) -> EngineTraits:
        """What it is loaded with. One for several versions of TensorRT brings its vendor's runtime."""
        host_code = is_range(self.required.get("tensorrt", ""))
        return EngineTraits(host_code=host_code, refit_from=self.refit_from, padding=self.padding)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    sha256: str
    fingerprint: dict[str, str]  # what the engine requires
    batch: BatchProfile
    proven_on: tuple[str, ...] = ()  # keys of devices: a proof counts on the very device alone
    graph_sha256: str | None = None  # of the graph that an engine without weights was built from
    half_pixel: bool = False
    padding: tuple[Padding, ...] = ()


class EngineCache:
    """Engines of one bundle under `root`/<bundle digest>/<backend>-<key of what the engine requires>/.

    Raises: OutputError for a `root` inside a bundle.
    """

    def __init__(self, root: Path, bundle_digest: str) -> None:
        self._folder = root / bundle_digest
        refuse_inside_bundle(self._folder)

    def get(
        self, backend: str, here: Mapping[str, str], read_graph: Callable[[], bytes] = bytes
    ) -> CachedEngine | None:
        """Return an engine that the device `here` meets; None if there is none or it was damaged.

        The one made for this very device comes before those made to be compatible. `read_graph` gives the graph for
        engines without weights, of which only those built from this very one are returned.
        """
        own = self._entry_folder(backend, here)
        for folder in (own, *self._others(backend, own)):
            # Of another folder whose entry cannot be read nobody knows whether this device could have used it.
            entry = _read_entry(folder, logging.WARNING if folder == own else logging.DEBUG)
            if entry is not None and not misfits(entry.fingerprint, here):
                engine = _read_engine(folder, entry, read_graph)
                if engine is not None:
                    return replace(engine, proven=device_key(here) in entry.proven_on)
        return None

    def _others(self, backend: str, own: Path) -> list[Path]:
        names = re.compile(rf"{re.escape(backend)}-[0-9a-f]{{{KEY_LENGTH}}}")
        try:
            return sorted(path for path in self._folder.iterdir() if names.fullmatch(path.name) and path != own)
        except OSError:
            return []

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

    def put(self, backend: str, here: Mapping[str, str], engine: CachedEngine) -> Path | None:
        """Keep an engine and return its folder; None, with a warning, where the cache cannot be written.

        A compatible one takes the place of what was made for this very device.
        """
        folder, own = self._entry_folder(backend, engine.required), self._entry_folder(backend, here)
        made = _Entry(
            sha256=sha256_of(engine.data),
            graph_sha256=None if engine.refit_from is None else sha256_of(engine.refit_from),
            fingerprint=dict(engine.required),
            batch=engine.batch,
            half_pixel=engine.half_pixel,
            padding=engine.padding,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                earlier = _read_entry(folder) if (folder / ENTRY_FILE).exists() else None
                proven_on = {device_key(here)} if engine.proven else set()
                if earlier is not None and replace(earlier, proven_on=()) == made:
                    proven_on |= set(earlier.proven_on)
                entry = replace(made, proven_on=tuple(sorted(proven_on)))
                # The entry vouches for the engine, so it is replaced last; a kill in between is a miss.
                replace_file(folder / ENGINE_FILE, engine.data)
                replace_file(folder / ENTRY_FILE, msgspec.json.encode(entry))
            if own != folder:
                (own / ENTRY_FILE).unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("the engine is not kept: cannot write %s (%s)", folder, exc.strerror or exc)
            return None
        return folder

    def _entry_folder(self, backend: str, fingerprint: Mapping[str, str]) -> Path:
        return self._folder / f"{backend}-{device_key(fingerprint)}"


def device_key(fingerprint: Mapping[str, str]) -> str:
    """Return the name in the cache of what a fingerprint, or the requirements of an engine, say."""
    return sha256_of(msgspec.json.encode(sorted(fingerprint.items())))[:KEY_LENGTH]


def _read_entry(folder: Path, level: int = logging.WARNING) -> _Entry | None:
    """Return the entry; None, with a line in the log at `level` if it is damaged, where there is none."""
    try:
        return msgspec.json.decode((folder / ENTRY_FILE).read_bytes(), type=_Entry)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, ConfigError) as exc:
        logger.log(level, "ignoring the damaged cache entry %s (%s)", folder, exc)
        return None


def _read_engine(folder: Path, entry: _Entry, read_graph: Callable[[], bytes]) -> CachedEngine | None:
    """Return the engine, not proven; None, with a warning if it is damaged or of another graph, where there is none."""
    try:
        data = (folder / ENGINE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        logger.warning("ignoring the damaged cache entry %s (%s)", folder, exc)
        return None
    if sha256_of(data) != entry.sha256:
        logger.warning("ignoring the damaged cache entry %s (its sha256 differs)", folder)
        return None
    graph = None if entry.graph_sha256 is None else read_graph()
    if graph is not None and sha256_of(graph) != entry.graph_sha256:
        logger.warning("ignoring the engine without weights in %s: it was built from another graph", folder)
        return None
    return CachedEngine(
        data=data,
        batch=entry.batch,
        required=entry.fingerprint,
        proven=False,
        refit_from=graph,
        half_pixel=entry.half_pixel,
        padding=entry.padding,
    )
