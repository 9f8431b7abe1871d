"""Bundles are written whole or not at all, and never changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sample_manifest import manifest

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import bundle_around, check_output, write_bundle
from ran_deploy.errors import OutputError

FILES = {"model.onnx": b"graph" * 100, "golden.npz": b"x"}


def test_an_existing_bundle_is_kept_unless_overwriting(tmp_path):
    path = tmp_path / "sorter.ran"
    write_bundle(path, manifest(), FILES)
    with pytest.raises(OutputError, match="already exists"):
        write_bundle(path, manifest(name="other"), FILES)
    assert open_bundle(path).manifest.name == "sorter"
    write_bundle(path, manifest(name="other"), FILES, overwrite=True)
    assert open_bundle(path).manifest.name == "other"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_bundle_is_never_replaced(tmp_path):
    photos = tmp_path / "train"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    for path in (photos, photos / "cat.jpg"):
        with pytest.raises(OutputError, match="is no bundle and is not replaced"):
            write_bundle(path, manifest(), FILES, overwrite=True)
    assert (photos / "cat.jpg").read_bytes() == b"cat"


def test_an_empty_name_is_no_place_for_a_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="names no bundle"):
        write_bundle(Path(), manifest(), FILES)


def test_a_bundle_set_aside_by_a_killed_overwrite_comes_back(tmp_path):
    path = tmp_path / "sorter.ran"
    write_bundle(path, manifest(), FILES)
    path.rename(tmp_path / ".sorter.ran.previous")
    with pytest.raises(OutputError, match="already exists"):
        write_bundle(path, manifest(name="other"), FILES)
    assert open_bundle(path).manifest.name == "sorter"
    assert list(tmp_path.iterdir()) == [path]


def test_a_leftover_of_our_own_process_number_is_cleared(tmp_path):
    path = tmp_path / "sorter.ran"
    (tmp_path / f".sorter.ran.partial-{os.getpid()}").mkdir()
    write_bundle(path, manifest(), FILES)
    assert list(tmp_path.iterdir()) == [path]


def test_a_bundle_inside_another_is_refused(tmp_path):
    path = tmp_path / "outer.ran"
    write_bundle(path, manifest(), FILES)
    with pytest.raises(OutputError, match=r"is inside the bundle .*outer\.ran, which never changes"):
        check_output(path / "inner.ran", overwrite=False)
    assert bundle_around(path / "engines" / "report.html") == path
    assert bundle_around(path) is None


def test_a_missing_output_folder_is_said(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        write_bundle(tmp_path / "nowhere" / "sorter.ran", manifest(), FILES)


WRITER = """
import sys
sys.path.insert(0, {samples!r})
import pathlib, sample_manifest
from ran_deploy.bundle_writing import write_bundle
files = {{f"part{{i}}": bytes(2**20) for i in range(60)}}
print("writing", flush=True)
write_bundle(pathlib.Path({path!r}), sample_manifest.manifest(), files)
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
def test_a_killed_writer_leaves_no_bundle_or_a_whole_one(tmp_path, delay):
    path = tmp_path / "sorter.ran"
    code = WRITER.format(samples=str(Path(__file__).parent / "samples"), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    try:
        process.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    process.stdout.close()
    if path.exists():
        open_bundle(path).verify()
    write_bundle(path, manifest(), FILES, overwrite=True)
    assert list(tmp_path.iterdir()) == [path], "what a killed writer left is removed by the next one"
