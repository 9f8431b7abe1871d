from __future__ import annotations

import contextlib
import hashlib
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
from sample_manifest import manifest

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.errors import BundleError, ConfigError
from ran_deploy.manifest import SCHEMA_VERSION, FileRecord, manifest_to_json
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.signature import read_signer

FILES = {"model.onnx": b"graph" * 100, "engines/openvino.plan": bytes(range(256)), "golden.npz": b"x"}


@pytest.fixture(params=[False, True], ids=["folder", "zip"])
def bundle_path(request, tmp_path):
    path = tmp_path / ("sorter.ran.zip" if request.param else "sorter.ran")
    write_bundle(path, manifest(), FILES, pack=request.param)
    return path


def flip(path: Path, name: str, position: int, mask: int = 1) -> None:
    """Flip one bit of one file, also inside a zip, without telling the zip's own checksum."""
    if path.is_dir():
        target = path / name
        data = bytearray(target.read_bytes())
        data[position] ^= mask
        target.write_bytes(data)
        return
    with zipfile.ZipFile(path) as archive:
        content = {n: bytearray(archive.read(n)) for n in archive.namelist()}
    content[name][position] ^= mask
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in content.items():
            archive.writestr(n, bytes(data))


def test_what_is_written_is_read_back(bundle_path):
    bundle = open_bundle(bundle_path)
    assert {name: bundle.read(name) for name in FILES} == FILES
    assert bundle.manifest.preprocessing == Preprocessing(crop=(31, 33), resize=40)
    assert list(bundle_path.parent.iterdir()) == [bundle_path]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_before_the_file_is_handed_out(bundle_path, name):
    flip(bundle_path, name, -1)
    bundle = open_bundle(bundle_path)
    with pytest.raises(BundleError, match=rf"{name} was changed after export"):
        bundle.read(name)
    with pytest.raises(BundleError, match="changed"):
        bundle.verify()


@pytest.mark.parametrize("mask", [1, 0x80])
@pytest.mark.parametrize("position", range(0, 1300, 75))
def test_a_flipped_bit_in_the_manifest_is_refused(bundle_path, position, mask):
    flip(bundle_path, "manifest.json", position, mask)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(bundle_path)


def test_a_flipped_bit_in_the_manifest_digest_is_refused(bundle_path):
    flip(bundle_path, "manifest.sha256", 3)
    with pytest.raises(BundleError, match=r"manifest\.json and manifest\.sha256 do not agree"):
        open_bundle(bundle_path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.onnx"])
def test_a_missing_file_makes_the_bundle_incomplete(tmp_path, name):
    path = tmp_path / "sorter.ran"
    write_bundle(path, manifest(), FILES)
    (path / name).unlink()
    with pytest.raises(BundleError, match=f"incomplete: {name} is missing"):
        open_bundle(path).verify()


def test_a_newer_schema_asks_for_an_upgrade(tmp_path):
    path = tmp_path / "sorter.ran"
    write_bundle(path, manifest(min_reader_version=SCHEMA_VERSION + 1), FILES)
    with pytest.raises(BundleError, match="Upgrade"):
        open_bundle(path)


@pytest.mark.parametrize("kept", [100, -1000, -1])
def test_a_truncated_zip_is_said_to_be_cut(tmp_path, kept):
    path = tmp_path / "sorter.ran.zip"
    write_bundle(path, manifest(), FILES, pack=True)
    path.write_bytes(path.read_bytes()[:kept])
    size = path.stat().st_size
    with pytest.raises(BundleError, match=rf"no bundle: .*cut short or damaged \({size} bytes, .*\. Copy .* again\.$"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"it is empty \(0 bytes\)\. Copy"),
        (b"<html><title>Sign in</title>", "it is a web page titled 'Sign in'"),
        (pickle.dumps({}), r"it is a pickle of Python objects\. Make a bundle of it with ran-export\."),
        (b"notes", r"it is text that begins with 'notes'\. Make one with ran-export\."),
    ],
    ids=["empty", "page", "checkpoint", "text"],
)
def test_a_file_of_another_kind_is_named(tmp_path, content, message):
    path = tmp_path / "sorter.ran.zip"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message):
        open_bundle(path)


def test_no_damage_of_a_zip_escapes_as_another_error(tmp_path, rng):
    path = tmp_path / "sorter.ran.zip"
    write_bundle(path, manifest(), FILES, pack=True)
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(BundleError):  # some bytes of a zip mean nothing
            open_bundle(path).verify()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../../etc/passwd", "outside the bundle"),
        ("/etc/passwd", "outside the bundle"),
        ("", "names '', which is no file's name"),
        (".", "names '.', which is no file's name"),
        ("a\0b", "which is no file's name"),
        ("x" * 5000, "names 'x{255}', which is no file's name"),
    ],
)
def test_names_that_are_of_no_file_of_the_bundle_are_refused(tmp_path, name, message):
    path = tmp_path / "sorter.ran"
    write_bundle(path, manifest(), FILES)
    outside = manifest(files={name: open_bundle(path).manifest.files["golden.npz"]})
    data = manifest_to_json(outside)
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest())
    with pytest.raises(BundleError, match=message):
        open_bundle(path)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photos", Path("/dev/null")):
        with pytest.raises(BundleError, match=r"is no bundle.* Expected NAME\.ran"):
            open_bundle(path)


@pytest.fixture(params=[False, True], ids=["folder", "zip"])
def signed_path(request, tmp_path, keys):
    path = tmp_path / ("sorter.ran.zip" if request.param else "sorter.ran")
    write_bundle(path, manifest(), FILES, pack=request.param, sign=read_signer(keys.private))
    return path


def forge(path: Path, content: dict[str, bytes]) -> None:
    """Put files in a bundle as someone would who repairs manifest.sha256 too, but has no private key."""
    if "manifest.json" in content:
        content = {**content, "manifest.sha256": hashlib.sha256(content["manifest.json"]).hexdigest().encode()}
    if path.is_dir():
        for name, data in content.items():
            (path / name).write_bytes(data)
        return
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a second entry of the same name, which readers prefer
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_signed_bundle_opens_with_the_key_and_without(signed_path, keys):
    for bundle in (open_bundle(signed_path), open_bundle(signed_path, require_signature=keys.public)):
        assert {name: bundle.read(name) for name in bundle.manifest.files} == FILES


def test_an_unsigned_bundle_opens_only_where_no_signature_is_required(bundle_path, keys):
    open_bundle(bundle_path).verify()
    with pytest.raises(BundleError, match="is not signed"):
        open_bundle(bundle_path, require_signature=keys.public)


def test_the_key_of_another_signer_is_refused(signed_path, keys):
    with pytest.raises(BundleError, match=r"was not signed by the owner of .*stranger\.pub\.pem"):
        open_bundle(signed_path, require_signature=keys.stranger)


@pytest.mark.parametrize("signature", [b"", b"x" * 64, b"x" * 65, b"x" * 10**6])
def test_what_is_no_signature_of_the_key_is_refused(signed_path, keys, signature):
    forge(signed_path, {"manifest.sig": signature})
    with pytest.raises(BundleError, match="was not signed by"):
        open_bundle(signed_path, require_signature=keys.public)


def test_a_forged_manifest_is_refused_though_its_digest_was_repaired(signed_path, keys):
    data = b"graph of a stranger"
    record = FileRecord(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    forged = manifest_to_json(manifest(files={"model.onnx": record}))
    forge(signed_path, {"model.onnx": data, "manifest.json": forged})
    assert open_bundle(signed_path).read("model.onnx") == data, "hashes alone do not show it"
    with pytest.raises(BundleError, match=r"manifest\.json was changed since"):
        open_bundle(signed_path, require_signature=keys.public)


def test_a_manifest_is_not_parsed_before_its_signature_is_verified(signed_path, keys):
    forge(signed_path, {"manifest.json": b"no JSON at all"})
    with pytest.raises(BundleError, match="was not signed by"):
        open_bundle(signed_path, require_signature=keys.public)


def test_a_signature_covers_every_file_through_the_manifest(signed_path, keys):
    forge(signed_path, {name: data[:-1] + b"!" for name, data in FILES.items()} | {"extra.plan": b"unlisted"})
    bundle = open_bundle(signed_path, require_signature=keys.public)
    for name in FILES:
        with pytest.raises(BundleError, match=rf"{name} was changed after export"):
            bundle.read(name)
    with pytest.raises(BundleError, match=r"has no extra\.plan"):
        bundle.read("extra.plan")


def test_an_empty_name_for_the_key_does_not_mean_none(signed_path):
    with pytest.raises(ConfigError, match="Cannot read the key"):
        open_bundle(signed_path, require_signature="")
