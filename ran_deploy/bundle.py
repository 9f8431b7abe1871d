"""Bundles: one immutable folder, or one zip, with a manifest that vouches for every other file.

`manifest.sha256` vouches for the manifest itself; its value is the bundle's digest. Nothing is handed out before its
sha256 has been compared, as an engine is executable code. `manifest.sig`, where there is one, says who made all of it.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from ran_deploy.errors import BundleError
from ran_deploy.file_kind import BUNDLE, PICKLE, SAFETENSORS, TORCH_SAVE, file_kind
from ran_deploy.manifest import Manifest, manifest_from_json
from ran_deploy.signature import read_verifier

__all__ = ["MANIFEST", "MANIFEST_DIGEST", "MANIFEST_SIGNATURE", "Bundle", "open_bundle", "sha256_of"]

MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
MANIFEST_SIGNATURE = "manifest.sig"
LONGEST_NAME = 255  # characters
CHECKPOINTS = (TORCH_SAVE, PICKLE, SAFETENSORS)


def sha256_of(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


class _Files(Protocol):
    def read(self, name: str) -> bytes: ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _Zip:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        # Opened for each file: a bundle may be read from several threads, and holds few files.
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(name)


class Bundle:
    """An opened bundle; see `open_bundle`."""

    def __init__(self, path: Path, files: _Files, manifest: Manifest, digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest
        self._files = files

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.files

    def read(self, name: str) -> bytes:
        """Return the verified content of one file. Raises: BundleError if it is missing or was changed."""
        record = self.manifest.files.get(name)
        if record is None:
            held = ", ".join(self.manifest.files) or "no files"
            raise BundleError(f"Bundle {self.path} has no {name}; it holds {held}. Copy or export it again.")
        data = _read(self._files, name, self.path)
        if len(data) != record.size_bytes or sha256_of(data) != record.sha256:
            raise BundleError(
                f"Bundle {self.path}: {name} was changed after export ({len(data)} bytes, its sha256 differs from the "
                f"manifest's). Do not use it: copy or export the bundle again."
            )
        return data

    def verify(self) -> None:
        """Read and check every file. Raises: BundleError for the first that is missing or was changed."""
        for name in self.manifest.files:
            self.read(name)


def open_bundle(path: str | Path, *, require_signature: str | Path | None = None) -> Bundle:
    """Open a folder NAME.ran or a file NAME.ran.zip: check schema and manifest, nothing else yet.

    `require_signature` is a public key whose owner must have signed the manifest, and with it the digest of every file.
    Raises: BundleError if there is no bundle, it is not signed so, or its manifest is damaged or needs a newer reader;
    ConfigError if the key cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise BundleError(f"Bundle {path} does not exist; make one with ran-export.")
    if path.is_file():
        _check_kind(path)
    elif path.is_dir() and not any((path / name).exists() for name in (MANIFEST, MANIFEST_DIGEST)):
        raise BundleError(f"{path} is no bundle: a folder without {MANIFEST}. Expected NAME.ran or NAME.ran.zip.")
    elif not path.is_dir():
        raise BundleError(f"{path} is no bundle, and no file either. Expected NAME.ran or NAME.ran.zip.")
    files: _Files = _Folder(path) if path.is_dir() else _Zip(path)
    data = _read(files, MANIFEST, path)
    if require_signature is not None:  # before the manifest is parsed: until then it is a stranger's
        _check_signature(files, data, Path(require_signature), path)
    digest = sha256_of(data)
    if _read(files, MANIFEST_DIGEST, path).decode("ascii", "replace").strip() != digest:
        manifest_from_json(data, f"Bundle {path}")  # a clearer message, if it is no manifest at all
        raise BundleError(
            f"Bundle {path}: {MANIFEST} and {MANIFEST_DIGEST} do not agree, so one of them was changed after export. "
            f"Do not use it: copy or export the bundle again."
        )
    manifest = manifest_from_json(data, f"Bundle {path}")
    for name in manifest.files:
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).is_absolute() or ".." in parts:
            raise BundleError(f"Bundle {path}: its manifest names {name!r}, outside the bundle. Do not use it.")
        if not parts or "\0" in name or len(name) > LONGEST_NAME:
            raise BundleError(
                f"Bundle {path}: its manifest names {name[:LONGEST_NAME]!r}, which is no file's name. Do not use it."
            )
    return Bundle(path, files, manifest, digest)


def _check_kind(path: Path) -> None:
    """Refuse a file that is no zip of a bundle. Raises: BundleError, which says what it is."""
    try:
        kind = file_kind(path)
    except OSError as exc:
        raise BundleError(f"Bundle {path} cannot be read ({exc.strerror}). Check its permissions.") from exc
    if kind == BUNDLE:
        return
    advice = "Make a bundle of it with ran-export." if kind in CHECKPOINTS else kind.advice
    raise BundleError(f"{path} is no bundle: it is {kind.what}. {advice or 'Make one with ran-export.'}")


def _check_signature(files: _Files, manifest: bytes, public_key: Path, path: Path) -> None:
    verify = read_verifier(public_key)
    unsigned = f"Bundle {path} is not signed and --require-signature is given. Export it with --sign PRIVATE.pem."
    if not verify(_read(files, MANIFEST_SIGNATURE, path, missing=unsigned), manifest):
        raise BundleError(
            f"Bundle {path} was not signed by the owner of {public_key}, or its {MANIFEST} was changed since. "
            f"Do not use it: get it again from who signed it."
        )


def _read(files: _Files, name: str, path: Path, *, missing: str = "") -> bytes:
    try:
        return files.read(name)
    except (FileNotFoundError, NotADirectoryError, KeyError) as exc:
        incomplete = f"Bundle {path} is incomplete: {name} is missing. Copy or export it again."
        raise BundleError(missing or incomplete) from exc
    except MemoryError:
        raise
    except Exception as exc:  # on damaged entries zipfile raises EOFError, UnicodeDecodeError, zlib.error and more
        cause = str(exc) or "its end is missing"
        raise BundleError(f"Bundle {path}: {name} cannot be read ({cause}). Copy or export it again.") from exc
