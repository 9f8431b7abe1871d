"""One .npz file, one split."""

from __future__ import annotations

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
