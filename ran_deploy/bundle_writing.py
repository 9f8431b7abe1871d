"""Writing bundles, whole or not at all; a bundle never changes, so nothing is written into one either."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ran_deploy.bundle import MANIFEST, MANIFEST_DIGEST, MANIFEST_SIGNATURE, sha256_of
from ran_deploy.errors import OutputError
from ran_deploy.manifest import FileRecord, Manifest, manifest_to_json

__all__ = ["bundle_around", "check_output", "refuse_inside_bundle", "write_bundle"]


def bundle_around(path: Path) -> Path | None:
    """Return the bundle inside which `path` is or would be; None if it is outside of all."""
    for folder in path.resolve().parents:
        with contextlib.suppress(OSError):  # what cannot be looked into cannot be written to either, and is refused so
            if (folder / MANIFEST).is_file() and (folder / MANIFEST_DIGEST).is_file():
                return folder
    return None


def refuse_inside_bundle(path: Path) -> None:
    """Raises: OutputError if `path` is or would be inside a bundle."""
    if (bundle := bundle_around(path)) is not None:
        raise OutputError(
            f"Cannot write {path}: it is inside the bundle {bundle}, which never changes. Choose a place outside of it."
        )


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise OutputError now if a bundle could not be written to `path` later; clears what a killed export left."""
    if not path.name:
        raise OutputError(f"{str(path)!r} names no bundle; expected a new NAME.ran.")
    parent = path.resolve().parent
    if not parent.is_dir():
        raise OutputError(f"Cannot write {path}: folder {parent} does not exist. Create it first.")
    refuse_inside_bundle(path)
    probe = _partial(path)
    try:
        _clear_leftovers(path)
        # Asking for permission is not enough: a read-only or virtual file system grants it and then refuses.
        probe.mkdir()
        probe.rmdir()
    except OSError as exc:
        raise OutputError(f"Cannot write {path} ({exc.strerror or exc}). Choose another place.") from exc
    if path.exists() and not _is_bundle(path):
        raise OutputError(f"{path} already exists, is no bundle and is not replaced; choose another name.")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} already exists and bundles never change; choose another name or add --overwrite.")


def write_bundle(
    path: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    *,
    pack: bool = False,
    overwrite: bool = False,
    sign: Callable[[bytes], bytes] | None = None,
) -> Manifest:
    """Write the files and their manifest beside `path`, then rename: `path` is whole or not there at all.

    `sign` gives the signature of the manifest's bytes.
    Returns the manifest as written, with digests and sizes. Raises: OutputError if that is impossible.
    """
    check_output(path, overwrite=overwrite)
    records = {name: FileRecord(sha256=sha256_of(data), size_bytes=len(data)) for name, data in files.items()}
    manifest = replace(manifest, files=records)
    encoded = manifest_to_json(manifest)
    signature = {MANIFEST_SIGNATURE: sign(encoded)} if sign else {}
    # The manifest comes last: a reader that meets a half-copied folder finds it incomplete.
    content = {**files, **signature, MANIFEST_DIGEST: (sha256_of(encoded) + "\n").encode(), MANIFEST: encoded}
    partial = _partial(path)
    try:
        (_write_zip if pack else _write_folder)(partial, content)
        _rename(partial, path)
    except OSError as exc:
        raise OutputError(f"Cannot write {path} ({exc.strerror or exc}). Free space or choose another place.") from exc
    finally:
        _remove(partial)
    return manifest


def _is_bundle(path: Path) -> bool:
    if path.is_dir():
        return (path / MANIFEST).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return MANIFEST in archive.namelist()


def _partial(path: Path) -> Path:
    return path.resolve().with_name(f".{path.name}.partial-{os.getpid()}")


def _previous(path: Path) -> Path:
    return path.resolve().with_name(f".{path.name}.previous")


def _write_folder(path: Path, content: Mapping[str, bytes]) -> None:
    path.mkdir()
    for name, data in content.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _write_zip(path: Path, content: Mapping[str, bytes]) -> None:
    with path.open("wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in content.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        file.flush()
        os.fsync(file.fileno())


def _rename(partial: Path, path: Path) -> None:
    """Put `partial` at `path`; the bundle that stood there is back if that fails, or at the next export if killed."""
    previous = _previous(path)
    if path.exists():
        path.rename(previous)
    try:
        partial.rename(path)
    except OSError:
        if previous.exists():
            previous.rename(path)
        raise
    _remove(previous)


def _clear_leftovers(path: Path) -> None:
    """Undo what a killed export left beside `path`; one that still runs is left alone."""
    previous = _previous(path)
    if previous.exists() and not path.exists():
        previous.rename(path)
    _remove(previous)
    for leftover in path.resolve().parent.glob(f".{glob.escape(path.name)}.partial-*"):
        pid = leftover.name.rpartition("-")[2]
        # Process numbers come back, so one of our own number is a leftover too.
        if pid == str(os.getpid()) or not (pid.isdigit() and _is_running(int(pid))):
            _remove(leftover)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
