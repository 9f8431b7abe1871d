"""What inputs stand for, in which order, and which are refused."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.errors import ConfigError, InputError
from ran_deploy.runtime.sources import expand_inputs


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = noise(4, 6, 3)
    Image.fromarray(image).save(path)
    return image


def names(sources, folder: Path) -> list[str]:
    return [os.path.relpath(source.name, folder) for source in sources]


def test_files_come_in_the_order_given(tmp_path):
    expected = write_image(tmp_path / "b.png")
    write_image(tmp_path / "a.png")
    sources = list(expand_inputs([str(tmp_path / "b.png"), str(tmp_path / "a.png")]))
    assert names(sources, tmp_path) == ["b.png", "a.png"]
    np.testing.assert_array_equal(sources[0].load(), expected)


def test_a_broken_link_in_a_folder_is_a_source_that_fails(tmp_path):
    (tmp_path / "lost.png").symlink_to("nowhere.png")
    (source,) = expand_inputs([str(tmp_path)])
    with pytest.raises(InputError, match=r"lost\.png"):
        source.load()


def test_a_folder_gives_its_images_at_any_depth_in_natural_order(tmp_path):
    for name in ("frame10.png", "frame2.png", "frame1.jpg", "deep/er/0.png", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    np.save(tmp_path / "frame3.npy", noise(2, 4, 6, 3))
    found = names(expand_inputs([str(tmp_path)]), tmp_path)
    assert found == ["deep/er/0.png", "frame1.jpg", "frame2.png", "frame3.npy[0]", "frame3.npy[1]", "frame10.png"]


def test_linked_folders_are_followed_once_and_hidden_ones_are_not(tmp_path):
    write_image(tmp_path / "elsewhere" / "a.png")
    write_image(tmp_path / "given" / ".hidden" / "b.png")
    (tmp_path / "given" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "given")
    assert names(expand_inputs([str(tmp_path / "given")]), tmp_path) == ["given/cat/a.png"]


def test_a_folder_that_cannot_be_read_in_full_is_refused(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scan(folder):  # root reads everything, so permissions alone would not tell
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ConfigError, match=r"closed cannot be read \(Permission denied\)"):
        expand_inputs([str(tmp_path)])


def test_patterns_give_what_they_match_in_natural_order(tmp_path):
    for name in ("x10.png", "x9.png", "y1.png", "deep/x1.png"):
        write_image(tmp_path / name)
    assert names(expand_inputs([str(tmp_path / "x*.png")]), tmp_path) == ["x9.png", "x10.png"]
    assert names(expand_inputs([str(tmp_path / "**" / "x*.png")]), tmp_path) == ["deep/x1.png", "x9.png", "x10.png"]


@pytest.mark.parametrize("pattern", ["", "*.png"])
def test_a_pipe_among_images_is_passed_over(tmp_path, pattern):
    write_image(tmp_path / "a.png")
    os.mkfifo(tmp_path / "live.png")  # to open it would wait for a writer
    assert names(expand_inputs([str(tmp_path / pattern)]), tmp_path) == ["a.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    write_image(tmp_path / "a[1].png")
    write_image(tmp_path / "a1.png")
    assert names(expand_inputs([str(tmp_path / "a[1].png")]), tmp_path) == ["a[1].png"]


def test_files_listed_on_stdin_are_read_as_they_come(tmp_path):
    write_image(tmp_path / "a b.png")

    def lines():
        yield f"{tmp_path}/a b.png\r\n"
        yield "\n"
        raise AssertionError("the second image was not asked for yet")

    class Stream(io.StringIO):
        def __iter__(self):
            return lines()

    source = next(expand_inputs(["-"], Stream()))
    assert source.load().shape == (4, 6, 3)
    with pytest.raises(ConfigError, match="no stdin"):
        expand_inputs(["-"])


@pytest.mark.parametrize(
    ("listed", "message"),
    [("", "names no files"), ("\n\r\n", "names no files"), ("a.png\0b.png\0", "separated by NUL")],
)
def test_a_list_on_stdin_that_names_nothing_is_a_mistake(listed, message):
    with pytest.raises(ConfigError, match=message):
        list(expand_inputs(["-"], io.StringIO(listed)))


@pytest.mark.parametrize("shape", [(5, 4, 6, 3), (5, 4, 6), (4, 6, 3)])
@pytest.mark.parametrize("kind", ["npy", "npz", "unnamed npz"])
def test_arrays_give_their_images(tmp_path, shape, kind):
    array = noise(*shape)
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, labels=np.arange(5), images=array)
    else:
        np.savez(path, array)
    sources = list(expand_inputs([str(path)]))
    single = shape == (4, 6, 3)
    assert names(sources, tmp_path) == ([path.name] if single else [f"{path.name}[{i}]" for i in range(5)])
    expected = array if single else array[-1]
    expected = expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2)
    np.testing.assert_array_equal(sources[-1].load(), expected)


def arrays_that_cannot_be_used(folder: Path) -> dict[str, str]:
    np.save(folder / "float.npy", np.zeros((2, 4, 6, 3), np.float32))
    np.save(folder / "flat.npy", np.zeros((4, 6), np.uint8))
    np.save(folder / "none.npy", np.zeros((0, 4, 6, 3), np.uint8))
    np.save(folder / "object.npy", np.array([{}], object), allow_pickle=True)
    np.savez(folder / "two.npz", a=np.zeros(3), b=np.zeros(3))
    (folder / "text.npz").write_text("no array at all")
    (folder / "cut.npy").write_bytes((folder / "float.npy").read_bytes()[:300])
    (folder / "empty.npy").write_bytes(b"")
    return {
        "float.npy": r"type float32 and shape \(2, 4, 6, 3\)",
        "flat.npy": r"shape \(4, 6\)",
        "none.npy": "no images",
        "object.npy": "cannot be read",
        "two.npz": "holds a, b",
        "text.npz": "cannot be read",
        "cut.npy": "cannot be read",
        "empty.npy": "cannot be read",
        "missing.npy": "No such file",
        "missing.png": "No such file",
    }


def test_what_cannot_be_read_is_one_source_that_fails_and_says_why(tmp_path):
    write_image(tmp_path / "good.png")
    for name, message in arrays_that_cannot_be_used(tmp_path).items():
        bad, good = expand_inputs([str(tmp_path / name), str(tmp_path / "good.png")])
        with pytest.raises(InputError, match=rf"{name}: .*{message}") as caught:
            bad.load()
        assert "\n" not in str(caught.value)
        assert good.load().shape == (4, 6, 3)


def test_inputs_that_name_nothing_are_refused_before_the_work(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="holds no image"):
        expand_inputs([str(tmp_path)])
    with pytest.raises(ConfigError, match=r"Nothing matches .*\*\.png"):
        expand_inputs([str(tmp_path / "*.png")])
    with pytest.raises(ConfigError, match="No inputs"):
        expand_inputs([])
    with pytest.raises(ConfigError, match="empty name"):
        expand_inputs([""])  # "$UNSET" in a shell
