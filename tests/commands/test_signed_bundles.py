"""--sign and --require-signature, from the command line and from Python."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import ran_deploy
from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.errors import BundleError
from ran_deploy.signature import read_signer

READERS = {
    "ran-build": ("--backend", "onnxruntime"),
    "ran-infer": ("images.npy", "--backend", "onnxruntime"),
    "ran-validate": ("--backend", "onnxruntime"),
    "ran-doctor": ("--for", "onnxruntime-1.32"),
    "ran-bench": ("--backend", "onnxruntime", "--batch", "1", "--seconds", "0.01", "--warm-up", "0"),
}


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.full((2, 32, 32, 3), 99, np.uint8))


@pytest.fixture
def signed(demo, keys, tmp_path):
    source, path = open_bundle(demo.bundle), tmp_path / "signed.ran"
    files = {name: source.read(name) for name in source.manifest.files}
    write_bundle(path, source.manifest, files, sign=read_signer(keys.private))
    return path


@pytest.mark.parametrize("command", READERS)
def test_each_command_takes_a_signed_bundle_and_refuses_others(command, call, demo, keys, signed):
    options = READERS[command]
    outcome = call(command, signed, *options, "--require-signature", keys.public)
    assert outcome.status == 0, outcome.err
    call(command, demo.bundle, *options, "--require-signature", keys.public).assert_refused("is not signed")
    call(command, signed, *options, "--require-signature", keys.stranger).assert_refused("was not signed by")
    call(command, signed, *options, "--require-signature", "").assert_refused("Cannot read the key")
    shutil.copy(signed / "golden.npz", signed / "graphs" / "onnxruntime.onnx")
    call(command, signed, *options, "--require-signature", keys.public, "--cache-dir", "new").assert_refused("changed")


def test_load_takes_the_key_too(demo, keys, signed):
    with ran_deploy.load(signed, "onnxruntime", cache_dir=demo.cache, require_signature=keys.public) as predictor:
        assert predictor.logits(np.load("images.npy")).shape == (2, 10)
    with pytest.raises(BundleError, match="is not signed"):
        ran_deploy.load(demo.bundle, cache_dir=demo.cache, require_signature=str(keys.public))


@pytest.mark.parametrize("pack", [False, True], ids=["folder", "zip"])
def test_an_export_can_sign_what_it_writes(pack, call, tiny, keys, tmp_path):
    options = [*tiny.options, "--precision", "fp32", "--backend", "onnxruntime", *(["--pack"] if pack else [])]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "x.ran", *options, "--sign", keys.private)
    assert outcome.status == 0, outcome.err
    output = tmp_path / ("x.ran.zip" if pack else "x.ran")
    open_bundle(output, require_signature=keys.public).verify()
    assert call("ran-validate", output, "--require-signature", keys.public).status == 0
    call("ran-validate", output, "--require-signature", keys.stranger).assert_refused("was not signed by")


def test_a_key_that_cannot_sign_is_refused_before_the_work(call, tiny, keys, tmp_path):
    options = [*tiny.options, "--precision", "fp32", "--sign", keys.public]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "x.ran", *options)
    outcome.assert_refused("is a public key")
    assert outcome.out == ""
    assert not (tmp_path / "x.ran").exists()
