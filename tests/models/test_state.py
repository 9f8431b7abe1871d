"""Files that are no whole checkpoint: what each turns out to be, in one line."""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ran_deploy.errors import CheckpointError
from ran_deploy.models.state import read_state

STATE = {f"{name}.weight": torch.arange(35.0).reshape(5, 7) for name in "abcdefgh"}


def legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


def zipped(path: Path) -> None:
    torch.save(STATE, path)


def safetensors(path: Path) -> None:
    save_file(STATE, path)


def keep(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("write", "kept", "expected"),
    [
        (zipped, 1000, "is a ZIP archive cut short or damaged (1000 bytes, "),
        (zipped, -9, "is a ZIP archive cut short or damaged ("),
        (legacy, 5, "is cut short or damaged (5 bytes; its end is missing)"),
        (legacy, 900, "is cut short or damaged (900 bytes; it holds no whole pickle)"),
        (legacy, -9, "its end is missing)"),
    ],
)
def test_a_cut_file_of_torch_is_said_to_be_cut(tmp_path, write, kept, expected):
    path = tmp_path / "net.pth"
    write(path)
    keep(path, kept)
    message = refused(path)
    assert expected in message
    assert message.endswith("Copy or save it again.")


@pytest.mark.parametrize("missing", [1, 200, 1000])
def test_a_cut_safetensors_file_says_how_much_there_should_be(tmp_path, missing):
    path = tmp_path / "net.safetensors"
    safetensors(path)
    size = path.stat().st_size
    keep(path, size - missing)
    assert f"is cut short or damaged: {size - missing} bytes, and its header announces at least {size}" in refused(path)


def test_a_safetensors_file_cut_in_its_header_says_so(tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors(path)
    keep(path, 100)
    assert "cut short or damaged: 100 bytes, and its header announces at least" in refused(path)
    keep(path, 5)
    assert "5 bytes that begin with" in refused(path)


OTHERS = {
    "text": (b"epoch 1, loss 0.3\n", "is text that begins with 'epoch 1, loss 0.3'"),
    "page": (b"<!doctype html><title>Sign in</title>", "is a web page titled 'Sign in'"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(200), "is a PNG image"),
    "empty": (b"", "is empty (0 bytes)"),
    "zeros": (bytes(9000), "zero, as a copy that broke off leaves"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("case", OTHERS)
def test_a_file_of_another_kind_is_named(tmp_path, case, suffix):
    content, expected = OTHERS[case]
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    message = refused(path)
    assert expected in message
    assert "expected safetensors" in message if suffix == ".safetensors" else "torch.save or safetensors" in message


def test_a_file_of_torch_under_the_name_of_safetensors_is_never_unpickled(tmp_path):
    path = tmp_path / "net.safetensors"
    zipped(path)
    assert refused(path).endswith("is a file of torch.save; expected safetensors, as its name says. Rename it to .pth.")


def test_other_archives_and_pickles_are_named(tmp_path):
    archive, script, plain = tmp_path / "photos.pth", tmp_path / "script.pth", tmp_path / "plain.pth"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("best.pth", b"x")
    assert "a ZIP archive that holds best.pth; expected a file of torch.save" in refused(archive)
    torch.jit.script(nn.Linear(2, 3)).save(str(script))
    assert "a TorchScript archive" in refused(script)
    plain.write_bytes(pickle.dumps({"a": np.zeros(3)}))
    assert "a pickle of Python objects, not torch.save's output" in refused(plain)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_no_damage_escapes_as_another_error(tmp_path, rng, write: Callable[[Path], None]):
    path = tmp_path / "net.pth"
    write(path)
    content = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(CheckpointError):  # what it does not touch may still be read
            read_state(path)


def test_a_name_that_is_no_text_in_a_damaged_zip_is_one_line(tmp_path):
    path = tmp_path / "net.pth"
    zipped(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"net/data/3", b"net/data/\xff", 1))
    assert "is damaged: " in refused(path)
