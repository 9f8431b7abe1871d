from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.signature import read_signer, read_verifier

MESSAGE = b'{"name": "sorter"}\n'


def openssl(*arguments: object, **settings: object) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command here")
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, **settings)


@pytest.fixture
def openssl_keys(tmp_path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def test_openssl_accepts_our_signature(openssl_keys, tmp_path):
    private, public = openssl_keys
    (tmp_path / "manifest.json").write_bytes(MESSAGE)
    (tmp_path / "manifest.sig").write_bytes(read_signer(private)(MESSAGE))
    files = ["-rawin", "-in", tmp_path / "manifest.json", "-sigfile", tmp_path / "manifest.sig"]
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public, *files)


def test_we_accept_the_signature_of_openssl(openssl_keys, tmp_path):
    private, public = openssl_keys
    (tmp_path / "manifest.json").write_bytes(MESSAGE)
    files = ["-rawin", "-in", tmp_path / "manifest.json", "-out", tmp_path / "manifest.sig"]
    openssl("pkeyutl", "-sign", "-inkey", private, *files)
    verify, signature = read_verifier(public), (tmp_path / "manifest.sig").read_bytes()
    assert verify(signature, MESSAGE)
    assert not verify(signature, MESSAGE + b" ")
    assert not verify(signature[:-1], MESSAGE)


def other_key(kind: str, keys, folder: Path) -> Path:
    """Return a path at which no plain Ed25519 private key stands."""
    path = folder / f"{kind}.pem"
    if kind == "folder":
        path.mkdir()
    elif kind == "endless":
        return Path("/dev/zero")
    elif kind == "rsa":
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", path)
    elif kind == "x25519":
        openssl("genpkey", "-algorithm", "x25519", "-out", path)
    elif kind == "encrypted":
        openssl("pkey", "-in", keys.private, "-aes256", "-passout", "pass:secret", "-out", path)
    elif kind != "missing":
        pem = keys.private.read_text()
        content = {"empty": "", "text": "my key\n", "public": keys.public.read_text(), "truncated": pem[:60]}
        path.write_text(content[kind])
    return path


WORDS = {
    "missing": "Cannot read the key",
    "folder": "Cannot read the key",
    "endless": "is no private key",
    "empty": "is no private key",
    "text": "is no private key",
    "truncated": "is no private key",
    "rsa": "of type RSA, not Ed25519",
    "x25519": "of type X25519, not Ed25519",
    "encrypted": "is an encrypted key",
    "public": "is a public key; --sign takes the private one",
}


@pytest.mark.parametrize("kind", WORDS)
def test_what_cannot_sign_is_refused_by_name_in_one_line(kind, keys, tmp_path):
    path = other_key(kind, keys, tmp_path)
    with pytest.raises(ConfigError, match=WORDS[kind]) as refusal:
        read_signer(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "endless", "empty", "text", "rsa", "encrypted"])
def test_what_cannot_verify_is_refused_by_name_in_one_line(kind, keys, tmp_path):
    path = other_key(kind, keys, tmp_path)
    with pytest.raises(ConfigError) as refusal:
        read_verifier(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_private_key_is_not_taken_for_a_public_one(keys):
    with pytest.raises(ConfigError, match="is a private key; --require-signature takes the public one"):
        read_verifier(keys.private)


def test_a_public_key_of_another_algorithm_is_named(keys, tmp_path):
    private, public = other_key("rsa", keys, tmp_path), tmp_path / "public.pem"
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    with pytest.raises(ConfigError, match="of type RSA, not Ed25519"):
        read_verifier(public)


@pytest.mark.parametrize("read", [read_signer, read_verifier])
def test_without_cryptography_it_says_what_to_install(read, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)  # how Python marks what cannot be imported
    with pytest.raises(BackendUnavailableError, match=r"pip install 'ran-deploy\[sign\]'"):
        read(keys.public)
