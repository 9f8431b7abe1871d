"""Image folders: splits, classes and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.datasets import Split, open_dataset, open_images
from ran_deploy.errors import DatasetError, InputError


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = noise(5, 7, 3, seed=seed)
    Image.fromarray(image).save(path)
    return image


def test_a_folder_with_both_splits_gives_the_one_asked_for(tmp_path):
    write_image(tmp_path / "train" / "cat" / "1.png", 1)
    write_image(tmp_path / "train" / "dog" / "2.png", 2)
    expected = write_image(tmp_path / "val" / "dog" / "deep" / "3.png", 3)
    assert [len(open_dataset(tmp_path, split)) for split in Split] == [2, 1]
    test = open_dataset(tmp_path, Split.TEST)
    np.testing.assert_array_equal(test.image(0), expected)
    assert test.origin(0) == "dog/deep/3.png"


def test_a_class_that_only_the_other_split_has_keeps_its_number(tmp_path):
    write_image(tmp_path / "train" / "cat" / "1.png")
    write_image(tmp_path / "train" / "dog" / "2.png")
    write_image(tmp_path / "test" / "dog" / "3.png")
    test = open_dataset(tmp_path, Split.TEST)
    assert test.classes == ("cat", "dog")
    assert test.label(0) == 1


def test_class_folders_without_splits_are_one_split(tmp_path):
    for name in ("b", "a", "train"):  # a class may be named like a split
        write_image(tmp_path / name / "x.jpg")
    for split in Split:
        dataset = open_dataset(tmp_path, split)
        assert dataset.classes == ("a", "b", "train")
        assert [dataset.label(i) for i in range(3)] == [0, 1, 2]


def test_a_flat_folder_has_no_labels_and_passes_over_other_files(tmp_path):
    write_image(tmp_path / "b.png", 1)
    expected = write_image(tmp_path / "A.PNG", 2)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._b.png").write_bytes(b"x")
    dataset = open_dataset(tmp_path, Split.TRAIN)
    assert (len(dataset), dataset.label(0), dataset.classes) == (2, None, None)
    np.testing.assert_array_equal(dataset.image(0), expected)


def test_val_is_taken_before_test(tmp_path):
    for folder in ("train", "test", "val"):
        write_image(tmp_path / folder / f"{folder}.png")
    assert open_dataset(tmp_path, Split.TEST).origin(0) == "val.png"


def test_a_missing_split_is_an_error_that_names_what_is_there(tmp_path):
    write_image(tmp_path / "train" / "cat" / "1.png")
    with pytest.raises(DatasetError, match=r"has train/ but none of val/, valid/, validation/, test/"):
        open_dataset(tmp_path, Split.TEST)


def test_an_empty_split_is_an_error(tmp_path):
    write_image(tmp_path / "train" / "cat" / "1.png")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"val holds no images"):
        open_dataset(tmp_path, Split.TEST)


def test_a_damaged_image_is_an_error_of_that_image_alone(tmp_path):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    dataset = open_dataset(tmp_path, Split.TEST)
    dataset.image(0)
    with pytest.raises(InputError, match=r"b\.png"):
        dataset.image(1)


def test_links_that_lead_in_circles_give_each_image_once_and_no_other_class(tmp_path):
    write_image(tmp_path / "cat" / "1.png")
    write_image(tmp_path / "dog" / "2.png")
    (tmp_path / "cat" / "itself").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    dataset = open_dataset(tmp_path, Split.TEST)
    assert [dataset.origin(i) for i in range(len(dataset))] == ["cat/1.png", "dog/2.png"]


def test_a_linked_class_folder_is_followed_and_hidden_folders_are_not(tmp_path):
    write_image(tmp_path / "elsewhere" / "1.png")
    write_image(tmp_path / "data" / "dog" / ".cache" / "2.png")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    dataset = open_dataset(tmp_path / "data", Split.TEST)
    assert [dataset.origin(i) for i in range(len(dataset))] == ["cat/1.png"]
    assert dataset.classes == ("cat", "dog")


def test_an_empty_class_folder_is_a_class_without_images(tmp_path):
    write_image(tmp_path / "dog" / "1.png")
    (tmp_path / "cat").mkdir()
    dataset = open_dataset(tmp_path, Split.TEST)
    assert (len(dataset), dataset.classes, dataset.label(0)) == (1, ("cat", "dog"), 1)


def test_class_folders_that_are_all_empty_are_no_data_set(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(DatasetError, match="no known data set"):
        open_dataset(tmp_path, Split.TEST)


@pytest.mark.parametrize("kind", ["folder", "dangling link"])
def test_what_is_called_an_image_but_is_none_is_an_error_of_that_image_alone(tmp_path, kind):
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir() if kind == "folder" else (tmp_path / "b.png").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"b\.png: cannot be read"):
        open_dataset(tmp_path, Split.TEST).image(1)


def test_a_pipe_among_images_is_passed_over(tmp_path):
    for folder in (tmp_path / "flat", tmp_path / "classes" / "cat"):
        write_image(folder / "a.png")
        os.mkfifo(folder / "live.png")  # to open it would wait for a writer
    assert [len(open_dataset(tmp_path / name, Split.TEST)) for name in ("flat", "classes")] == [1, 1]


def test_without_labels_all_images_below_a_folder_count(tmp_path):
    for name in ("1.png", "cat/2.png", "cat/deep/3.png", ".hidden/4.png"):
        write_image(tmp_path / name)
    dataset = open_images(tmp_path)
    assert sorted(dataset.origin(index) for index in range(len(dataset))) == ["1.png", "cat/2.png", "cat/deep/3.png"]
    assert {dataset.label(index) for index in range(3)} == {None}


def test_without_labels_a_folder_with_both_splits_still_gives_the_test_split(tmp_path):
    write_image(tmp_path / "train" / "cat" / "1.png")
    write_image(tmp_path / "val" / "cat" / "2.png")
    dataset = open_images(tmp_path)
    assert [dataset.origin(index) for index in range(len(dataset))] == ["cat/2.png"]


def test_without_labels_a_folder_with_the_other_split_alone_is_refused(tmp_path):
    write_image(tmp_path / "train" / "1.png")
    with pytest.raises(DatasetError, match="has train/ but none of"):
        open_images(tmp_path)
