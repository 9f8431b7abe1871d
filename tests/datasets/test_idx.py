"""IDX files of both splits, whole and damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.datasets import Split, open_dataset
from ran_deploy.datasets.idx import read_idx
from ran_deploy.errors import DatasetError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("pattern", ["{}-{}-{}-ubyte.gz", "{}-{}.{}-ubyte"])
def test_idx_splits_are_told_apart_by_name_and_grey_becomes_three_equal_channels(tmp_path, pattern):
    images = {"train": noise(3, 6, 5, seed=1), "t10k": noise(2, 6, 5, seed=2)}
    for part, array in images.items():
        write_idx(tmp_path / pattern.format(part, "images", "idx3"), array)
        write_idx(tmp_path / pattern.format(part, "labels", "idx1"), np.arange(len(array), dtype=np.uint8))
    train, test = (open_dataset(tmp_path, split) for split in Split)
    assert (len(train), len(test), test.label(1), test.defaults) == (3, 2, 1, None)
    np.testing.assert_array_equal(test.image(1), np.stack([images["t10k"][1]] * 3, axis=-1))
    alone = open_dataset(tmp_path / pattern.format("train", "images", "idx3"), Split.TEST)
    np.testing.assert_array_equal(alone.image(2), train.image(2))


def test_idx_labels_of_another_length_are_refused(tmp_path):
    write_idx(tmp_path / "t10k-images-idx3-ubyte", noise(3, 4, 5))
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8))
    with pytest.raises(DatasetError, match=r"labels of type uint8 and shape \(2,\) for 3 images"):
        open_dataset(tmp_path, Split.TEST)
    with pytest.raises(DatasetError, match="has no train-images-idx3-ubyte"):
        open_dataset(tmp_path, Split.TRAIN)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"\0\0\x0d" + data[3:], lambda _: b""])
def test_a_damaged_idx_file_is_an_error(tmp_path, damage):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    write_idx(path, noise(3, 4, 5))
    path.write_bytes(damage(gzip.decompress(path.read_bytes())))
    with pytest.raises(DatasetError, match="t10k-images"):
        open_dataset(tmp_path, Split.TEST)


def test_a_gzip_file_cut_short_is_an_error(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    write_idx(path, noise(3, 40, 50))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match=r"Cannot read .*t10k-images.*Fetch the file again"):
        open_dataset(tmp_path, Split.TEST)


@pytest.mark.parametrize(("images", "labels"), [(".gz", ""), ("", ".gz")])
def test_labels_are_found_if_only_one_of_the_two_files_is_gzipped(tmp_path, images, labels):
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{images}", noise(2, 4, 5))
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{labels}", np.uint8([4, 7]))
    dataset = open_dataset(tmp_path, Split.TEST)
    assert [dataset.label(i) for i in range(2)] == [4, 7]


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason=f"Fashion-MNIST is not at {FASHION_MNIST}")
def test_fashion_mnist_is_recognised_by_its_pixels():
    images = read_idx(FASHION_MNIST / "t10k-images-idx3-ubyte.gz")
    dataset = open_dataset(FASHION_MNIST, Split.TEST)
    assert (dataset.name, len(dataset)) == ("Fashion-MNIST", 10_000)
    assert dataset.defaults is not None
    assert (dataset.defaults.mean[0], dataset.defaults.std[2]) == (0.2860, 0.3530)
    assert dataset.classes is not None
    assert dataset.classes[9] == "Ankle boot"
    np.testing.assert_array_equal(dataset.image(1234)[..., 1], images[1234])
