"""Ed25519 signatures: who made a bundle, which its hashes alone cannot say.

Keys are PEM files as OpenSSL makes them. A signature is the raw 64 bytes over the exact bytes of the manifest, so that
`openssl pkeyutl -verify -rawin` checks it too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ran_deploy.errors import BackendUnavailableError, ConfigError

__all__ = ["read_signer", "read_verifier"]

MAKE_PRIVATE = "openssl genpkey -algorithm ed25519 -out private.pem"
MAKE_PUBLIC = "openssl pkey -in private.pem -pubout -out public.pem"
LARGEST_PEM_BYTES = 2**16  # of any key; a path such as /dev/zero has no end


def read_signer(path: Path) -> Callable[[bytes], bytes]:
    """Return what signs data with the private key at `path`.

    Raises: ConfigError if that is no Ed25519 private key in plain PEM; BackendUnavailableError without cryptography.
    """
    serialization, ed25519 = _import_cryptography()
    pem = _read_pem(path)
    if b"ENCRYPTED" in pem:
        raise ConfigError(
            f"{path} is an encrypted key; --sign takes a plain one: openssl pkey -in {path} -out plain.pem."
        )
    if b"PUBLIC KEY" in pem and b"PRIVATE KEY" not in pem:
        raise ConfigError(f"{path} is a public key; --sign takes the private one. Make one: {MAKE_PRIVATE}.")
    key = _parsed(lambda: serialization.load_pem_private_key(pem, password=None), path, "private", MAKE_PRIVATE)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError(f"{path} is a key of type {_kind(key)}, not Ed25519. Make one: {MAKE_PRIVATE}.")
    sign: Callable[[bytes], bytes] = key.sign
    return sign


def read_verifier(path: Path) -> Callable[[bytes, bytes], bool]:
    """Return what says whether a signature (first) over data (second) was made with the other half of the public key.

    Raises: ConfigError if `path` is no Ed25519 public key in PEM; BackendUnavailableError without cryptography.
    """
    serialization, ed25519 = _import_cryptography()
    from cryptography.exceptions import InvalidSignature

    pem = _read_pem(path)
    if b"PRIVATE KEY" in pem:
        raise ConfigError(f"{path} is a private key; --require-signature takes the public one: {MAKE_PUBLIC}.")
    key = _parsed(lambda: serialization.load_pem_public_key(pem), path, "public", MAKE_PUBLIC)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ConfigError(f"{path} is a key of type {_kind(key)}, not Ed25519. Give the public key of who signed.")

    def verify(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return verify


def _import_cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as exc:
        raise BackendUnavailableError(
            f"Signatures need cryptography ({exc}). Install it: pip install 'ran-deploy[sign]'."
        ) from exc
    return serialization, ed25519


def _read_pem(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_PEM_BYTES)
    except OSError as exc:
        raise ConfigError(f"Cannot read the key {path} ({exc.strerror or exc}); expected a PEM file.") from exc


def _parsed(load: Callable[[], Any], path: Path, half: str, remedy: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:  # TypeError: encrypted
        raise ConfigError(f"{path} is no {half} key in PEM. Make one: {remedy}.") from exc


def _kind(key: Any) -> str:
    return type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
