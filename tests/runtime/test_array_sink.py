"""Arrays of results: NumPy reads them, rows keep their places, and the list beside them says whose they are."""

from __future__ import annotations

import contextlib
import json
import os

import numpy as np
import pytest

from ran_deploy.errors import OutputError
from ran_deploy.runtime.answers import Classes, Embeddings
from ran_deploy.runtime.pipeline import Result
from ran_deploy.runtime.result_files import open_sink

ROWS = np.float32([[3, 4, 0], [0, 0, 0], [-1, 2, 2]])
NAMES = ["a.jpg", "broken\n.jpg", "zeros.jpg", "b.jpg"]


def write(path, answers) -> None:
    logits = iter(ROWS)
    with open_sink(path, answers) as sink:
        for index, name in enumerate(NAMES):
            broken = name.startswith("broken")
            row = {"error": "no image"} if broken else {"logits": next(logits)}
            sink.write(Result(index=index, name=name, **row))


@pytest.mark.parametrize("answers", [Embeddings(3), Classes(3)], ids=["embedding", "logits"])
def test_rows_are_in_the_order_of_the_inputs_and_nan_where_an_image_failed(answers, tmp_path):
    write(tmp_path / "out.npy", answers)
    array = np.load(tmp_path / "out.npy", mmap_mode="r", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (4, 3))
    np.testing.assert_array_equal(array[[0, 2, 3]], ROWS)
    assert np.isnan(array[1]).all()


def test_the_list_beside_it_names_the_source_of_each_row(tmp_path):
    write(tmp_path / "out.npy", Embeddings(3))
    rows = [json.loads(line) for line in (tmp_path / "out.sources.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == NAMES
    assert [row["error"] for row in rows] == [None, "no image", None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npy", "out.sources.jsonl"]


def test_normalized_rows_have_norm_one_and_zeros_stay_zeros(tmp_path):
    write(tmp_path / "out.npy", Embeddings(3, normalize=True))
    array = np.load(tmp_path / "out.npy")[[0, 2, 3]]
    np.testing.assert_allclose(array, [[0.6, 0.8, 0], [0, 0, 0], [-1 / 3, 2 / 3, 2 / 3]], rtol=1e-6)


def test_no_results_are_an_array_of_no_rows(tmp_path):
    open_sink(tmp_path / "out.npy", Embeddings(512)).close()
    assert np.load(tmp_path / "out.npy").shape == (0, 512)


def test_a_run_that_fails_leaves_neither_file(tmp_path):
    with contextlib.suppress(KeyboardInterrupt), open_sink(tmp_path / "out.npy", Embeddings(3)) as sink:
        sink.write(Result(index=0, name="a.jpg", logits=ROWS[0]))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_and_a_missing_folder_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(OutputError, match="which is no file"):
        open_sink(tmp_path / "pipe.npy", Embeddings(3))
    with pytest.raises(OutputError, match=r"Cannot write .*out\.npy"):
        open_sink(tmp_path / "missing" / "out.npy", Embeddings(3))
    (tmp_path / "out.sources.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"out\.sources\.jsonl \(Is a directory"):
        open_sink(tmp_path / "out.npy", Embeddings(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.sources.jsonl", "pipe.npy"]
