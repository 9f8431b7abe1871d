"""A manifest that was edited, with manifest.sha256 made again: one line from every command, and no result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

ANOTHER_NETWORK = {  # what is edited -> what the engine, or else golden.npz, turns out to be
    "fewer classes": (lambda m: m.update(output_size=4, labels=m["labels"][:4]), "10), and", "4)"),
    "more features": (lambda m: m.update(output_size=12, labels=None), "10), and", "12)"),
    "beyond memory": (lambda m: m.update(output_size=10**12, labels=None), "10), and", "1000000000000)"),
    "larger images": (lambda m: m["preprocessing"].update(crop=[48, 48]), "32, 32, 3), and", "48, 48, 3)"),
    "endless images": (lambda m: m["preprocessing"].update(crop=[10**9, 8]), "32, 32, 3), and", "1000000000, 8, 3)"),
}


@pytest.fixture
def forged(demo, tmp_path) -> Callable[..., Path]:
    """Return what copies the demo bundle with its manifest edited, as who makes manifest.sha256 again can."""

    def forge(edit: Callable[[dict], object]) -> Path:
        folder = tmp_path / "forged.ran"
        folder.mkdir()
        for file in demo.bundle.iterdir():
            if not file.name.startswith("manifest."):
                (folder / file.name).symlink_to(file)
        manifest = json.loads((demo.bundle / "manifest.json").read_bytes())
        edit(manifest)
        data = json.dumps(manifest).encode()
        (folder / "manifest.json").write_bytes(data)
        (folder / "manifest.sha256").write_text(hashlib.sha256(data).hexdigest() + "\n")
        return folder

    return forge


@pytest.mark.parametrize("kind", ANOTHER_NETWORK)
def test_an_engine_that_is_not_the_one_described_is_refused_by_every_command(kind, call, forged, demo, tmp_path):
    edit, found, said = ANOTHER_NETWORK[kind]
    bundle = forged(edit)
    for command in (
        ("ran-infer", bundle, demo.images, "--backend", "onnxruntime"),
        ("ran-infer", bundle, demo.images, "--backend", "openvino"),
        ("ran-validate", bundle, "--backend", "onnxruntime"),
        ("ran-bench", bundle, "--backend", "onnxruntime"),
        ("ran-build", bundle, "--backend", "onnxruntime", "--cache-dir", tmp_path / "cache"),
        ("ran-build", bundle, "--backend", "tensorrt", "--trtexec", tmp_path / "recipe"),
    ):
        call(*command).assert_refused(found, said, "changed. Do not use the bundle: copy or export it again.")
    assert not (tmp_path / "recipe").exists()
    assert not list((tmp_path / "cache").rglob("engine.plan"))


def test_masks_that_the_engine_does_not_put_out_are_missed(call, forged, demo, tmp_path):
    bundle = forged(lambda m: m.update(attention=[{"name": "m1", "module": "m", "height": 4, "width": 4}]))
    call("ran-infer", bundle, demo.images, "--backend", "onnxruntime").assert_refused(
        "engine of demo gives no 'attention/m1', and its manifest.json says (N, 4, 4)"
    )
    recipe = ("--backend", "tensorrt", "--trtexec", tmp_path / "recipe")
    call("ran-build", bundle, *recipe).assert_refused("gives no 'attention/m1'")
    assert not (tmp_path / "recipe").exists()


def test_a_bundle_that_lacks_what_proves_it_is_refused_before_anything_is_built(call, forged, tmp_path):
    bundle = forged(lambda m: m["files"].pop("golden.npz"))
    cache = tmp_path / "cache"
    call("ran-build", bundle, "--backend", "onnxruntime", "--cache-dir", cache).assert_refused(
        "has no golden.npz; it holds", "Copy or export it again."
    )
    assert not list(cache.rglob("engine.plan"))
