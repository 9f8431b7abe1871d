"""One .npz file, one split."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import DatasetError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 1), (4, 6, 5, 3)])
def test_npz_is_one_split_whichever_is_asked_for(tmp_path, shape):
    images = noise(*shape)
    np.savez(tmp_path / "data.npz", images=images, labels=np.int32([3, 1, 2, 0]), classes=["a", "b", "c", "d"])
    for split in Split:
        dataset = open_dataset(tmp_path / "data.npz", split)
        assert (len(dataset), dataset.label(0), dataset.origin(2)) == (4, 3, "data.npz[2]")
        assert dataset.classes == ("a", "b", "c", "d")
        np.testing.assert_array_equal(dataset.image(3), np.broadcast_to(images[3].reshape(6, 5, -1), (6, 5, 3)))


def test_npz_without_labels_has_none(tmp_path):
    np.savez(tmp_path / "data.npz", images=noise(2, 4, 5, 3))
    assert open_dataset(tmp_path / "data.npz", Split.TEST).label(1) is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": noise(2, 4, 5, 3)}, "holds x; an array named 'images'"),
        ({"images": noise(2, 4, 5, 3) / 255}, r"type float64 and shape \(2, 4, 5, 3\)"),
        ({"images": noise(2, 3, 4, 5)}, r"shape \(2, 3, 4, 5\)"),
        ({"images": noise(0, 4, 5, 3)}, "holds no images"),
        ({"images": noise(3, 0, 5)}, r"holds no images: its shape is \(3, 0, 5\)"),
        ({"images": np.uint8(7)}, r"type uint8 and shape \(\)"),
        ({"images": noise(1, 4, 5, 3), "labels": np.int64([])}, r"shape \(0,\) for 1 image; one class index"),
        ({"images": np.array([{}, {}])}, "cannot be read"),
        ({"images": noise(2, 4, 5, 3), "labels": np.int64([0, -1])}, "class index, 0 or more"),
        ({"images": noise(2, 4, 5, 3), "labels": np.float32([0, 1])}, "labels of type float32"),
        ({"images": noise(2, 4, 5, 3), "labels": np.array([{}, {}])}, "cannot be read"),
    ],
)
def test_npz_with_other_arrays_is_an_error(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "data.npz", Split.TEST)


def test_a_damaged_npz_is_an_error(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=noise(20, 14, 15, 3))
    whole = (tmp_path / "data.npz").read_bytes()
    for damaged in (b"", b"text", whole[:-100], whole[:900] + bytes(100) + whole[1000:]):
        (tmp_path / "data.npz").write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"data\.npz"):
            open_dataset(tmp_path / "data.npz", Split.TEST)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("array", ["images", "labels", "classes"])
def test_pickled_objects_are_never_loaded(tmp_path, array):
    arrays = {"images": noise(1, 4, 5), "labels": np.int64([0]), array: np.array([Malicious(tmp_path / "ran")], object)}
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DatasetError, match="cannot be read"):
        open_dataset(tmp_path / "data.npz", Split.TEST)
    assert not (tmp_path / "ran").exists()


def test_one_array_alone_is_refused(tmp_path):
    with (tmp_path / "data.npz").open("wb") as stream:
        np.save(stream, noise(2, 4, 5))
    with pytest.raises(DatasetError, match="a single array"):
        open_dataset(tmp_path / "data.npz", Split.TEST)


def test_a_header_that_announces_more_than_memory_is_refused(tmp_path):
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (10**13, 28, 28)}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(DatasetError, match=r"data\.npz holds more than memory"):
        open_dataset(tmp_path / "data.npz", Split.TEST)
