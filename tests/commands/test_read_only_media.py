"""Bundles on a file system that is mounted read-only, each command a real process that sees it so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOUNT = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount (unshare -rm)")


@pytest.fixture
def media(demo, tmp_path) -> Path:
    folder = tmp_path / "media"
    shutil.copytree(demo.bundle, folder / "demo.ran")
    shutil.make_archive(str(folder / "packed.ran"), "zip", demo.bundle)
    return folder


def on_read_only(media: Path, name: str, *arguments: object, cache: Path) -> subprocess.CompletedProcess:
    script = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    command = ["unshare", "-rm", "sh", "-c", MOUNT, str(media), *script]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


@pytest.mark.parametrize("name", ["demo.ran", "packed.ran.zip"])
def test_commands_read_a_bundle_there_and_write_beside_it(demo, media, tmp_path, name):
    cache = tmp_path / "cache"
    bundle, trouser = media / name, demo.images / "trouser.png"
    for command, *arguments in (
        ("ran-build", bundle, "--backend", "onnxruntime"),
        ("ran-infer", bundle, trouser, "--backend", "onnxruntime"),
        ("ran-validate", bundle, "--backend", "onnxruntime"),
    ):
        done = on_read_only(media, command, *arguments, cache=cache)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert any(cache.rglob("*")), "what the device made is in the cache"


def test_a_cache_there_does_not_keep_it_from_running(demo, media):
    done = on_read_only(media, "ran-infer", media / "demo.ran", demo.images / "trouser.png", cache=media / "cache")
    assert done.returncode == 0, done.stderr
    assert "Trouser" in done.stdout
    assert "Traceback" not in done.stderr


def test_an_export_to_it_is_refused_before_the_work(demo, media, tmp_path):
    done = on_read_only(
        media, "ran-export", demo.checkpoint, "-o", media / "new.ran", "--precision", "fp32", cache=tmp_path / "cache"
    )
    assert done.returncode == 2
    assert "Read-only file system" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
