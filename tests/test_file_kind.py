from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from ran_deploy.file_kind import PICKLE, SAFETENSORS, TORCH_SAVE, file_kind

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html lang='en'><head><title>Drive -\n Virus scan</title></head></html>"


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"content" * 99)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("best.pth"))
    return stream.getvalue()


def onnx_graph() -> bytes:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "g", [value], [value])
    return onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString()


KINDS = {
    "empty": (b"", "empty (0 bytes)", "again"),
    "text": (b"\n epoch 1\tloss 0.3\n" * 500, "text that begins with 'epoch 1 loss 0.3", ""),
    "text with a character cut": (("ä" * 4096).encode(), "text that begins with 'äää", ""),
    "page": (PAGE, "a web page titled 'Drive - Virus scan', as a failed download leaves", "Download"),
    "page without title": (b"<HTML><body>403", "a web page, as", "Download"),
    "page with an escape in its title": (b"<html><title>\x1b[31mred</title>", "titled '?[31mred'", ""),
    "pointer": (POINTER, "a Git LFS pointer (70 bytes in place of the file)", "git lfs pull"),
    "photos": (zipped("a/cat.jpg", "dog.jpg", "x"), "a ZIP archive that holds a/cat.jpg, dog.jpg, ...", "Unpack"),
    "empty zip, cut": (zipped("a")[:-30], "a ZIP archive cut short or damaged (", "again"),
    "script": (zipped("net/data.pkl", "net/constants.pkl"), "a TorchScript archive", ""),
    "bundle": (zipped("manifest.json", "manifest.sha256"), "a bundle of ran-export", ""),
    "gzip": (gzip.compress(b"x"), "compressed with gzip", "Unpack"),
    "tar": (tarred(), "a tar archive", "Unpack"),
    "array": (b"\x93NUMPY\x01\x00", "a NumPy array", ""),
    "zeros": (bytes(10_000), "10000 bytes, the first 4096 of them zero", "again"),
    "noise": (bytes(range(200, 256)), "of no known kind (56 bytes that begin with c8 c9 ca cb cc cd ce cf)", ""),
    "one byte": (b"\x08", "of no known kind (1 bytes", ""),
}


@pytest.mark.parametrize("case", KINDS)
def test_a_file_is_told_by_its_content(case, tmp_path):
    content, what, advice = KINDS[case]
    (tmp_path / "file.pth").write_bytes(content)
    kind = file_kind(tmp_path / "file.pth")
    assert kind.what.startswith(what) or what in kind.what
    assert advice in kind.advice
    assert kind.what.isprintable()


def test_an_onnx_graph_is_told_from_other_bytes(tmp_path):
    (tmp_path / "x").write_bytes(onnx_graph())
    assert file_kind(tmp_path / "x").what == "an ONNX graph"


def test_checkpoints_are_told_from_other_pickles(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    state = {"weight": torch.zeros(3, 5)}
    torch.save(state, tmp_path / "zip")
    torch.save(state, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    (tmp_path / "cut").write_bytes((tmp_path / "legacy").read_bytes()[:9])
    save_file(state, tmp_path / "safetensors")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"weight": np.zeros(3)}))
    kinds = {path.name: file_kind(path) for path in tmp_path.iterdir()}
    assert kinds == {
        "zip": TORCH_SAVE,
        "legacy": TORCH_SAVE,
        "cut": TORCH_SAVE,
        "safetensors": SAFETENSORS,
        "pickle": PICKLE,
    }
