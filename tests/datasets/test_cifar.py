"""CIFAR in its four versions, and pickles that are not arrays."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import DatasetError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cifar_batch(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return images (N, 32, 32, 3) and labels."""
    return noise(count, 32, 32, 3, seed=seed), [(seed + i) % 10 for i in range(count)]


def planes(images: np.ndarray) -> np.ndarray:
    return np.stack([images[..., c].reshape(len(images), -1) for c in range(3)], axis=1).reshape(len(images), -1)


def write_cifar10_python(folder: Path, protocol: int = 2) -> dict[str, tuple[np.ndarray, list[int]]]:
    folder.mkdir()
    batches = {
        name: cifar_batch(3, seed)
        for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"])
    }
    for name, (images, labels) in batches.items():
        content = {b"data": planes(images), b"labels": labels, b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"plane", b"car"]}, protocol))
    return batches


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("below", [True, False])
def test_cifar10_python_is_read_from_its_folder_or_the_one_above(tmp_path, protocol, below):
    folder = tmp_path / "cifar-10-batches-py"
    batches = write_cifar10_python(folder, protocol)
    train, test = (open_dataset(tmp_path if below else folder, split) for split in Split)
    assert (len(train), len(test), train.name, train.classes) == (15, 3, "CIFAR-10", ("plane", "car"))
    np.testing.assert_array_equal(train.image(4), batches["data_batch_2"][0][1])
    assert (train.label(4), train.origin(4)) == (batches["data_batch_2"][1][1], "data_batch_2[1]")
    np.testing.assert_array_equal(test.image(2), batches["test_batch"][0][2])
    assert train.defaults is not None
    assert (train.defaults.crop, train.defaults.resize) == ((32, 32), None)


def test_cifar10_binary_is_read(tmp_path):
    images, labels = cifar_batch(4, 7)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(np.column_stack([np.uint8(labels), planes(images)]).tobytes())
    (tmp_path / "batches.meta.txt").write_text("plane\ncar\n\n")
    dataset = open_dataset(tmp_path, Split.TEST)
    np.testing.assert_array_equal(dataset.image(3), images[3])
    assert [dataset.label(i) for i in range(4)] == labels
    assert dataset.classes == ("plane", "car")


def test_cifar100_gives_fine_labels_in_both_versions(tmp_path):
    images, fine = cifar_batch(4, 5)
    python, binary = tmp_path / "python", tmp_path / "binary"
    for folder in (python, binary):
        folder.mkdir()
    content = {"data": planes(images), "fine_labels": fine, "coarse_labels": [9] * 4}
    (python / "test").write_bytes(pickle.dumps(content))
    (python / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple"], "coarse_label_names": ["fruit"]}))
    (binary / "test.bin").write_bytes(np.column_stack([np.uint8([9] * 4), np.uint8(fine), planes(images)]).tobytes())
    for folder in (python, binary):
        dataset = open_dataset(folder, Split.TEST)
        assert dataset.name == "CIFAR-100"
        assert [dataset.label(i) for i in range(4)] == fine
        np.testing.assert_array_equal(dataset.image(1), images[1])
    assert open_dataset(python, Split.TEST).classes == ("apple",)


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"
    write_cifar10_python(tmp_path / "data")
    (tmp_path / "data" / "test_batch").write_bytes(pickle.dumps({"data": Malicious(marker)}))
    with pytest.raises(DatasetError, match=r"test_batch is not a CIFAR batch.*system"):
        open_dataset(tmp_path / "data", Split.TEST)
    assert not marker.exists()


def test_a_cifar_batch_cut_short_or_missing_is_an_error(tmp_path):
    folder = tmp_path / "data"
    write_cifar10_python(folder)
    whole = (folder / "test_batch").read_bytes()
    (folder / "test_batch").write_bytes(whole[:5000])
    with pytest.raises(DatasetError, match="test_batch is not a CIFAR batch, or damaged"):
        open_dataset(folder, Split.TEST)
    (folder / "data_batch_3").unlink()
    with pytest.raises(DatasetError, match="without data_batch_3"):
        open_dataset(folder, Split.TRAIN)
    (tmp_path / "test.bin").write_bytes(bytes(5000))
    with pytest.raises(DatasetError, match="no multiple of 3074"):
        open_dataset(tmp_path, Split.TEST)
