"""Result files: whole or absent, and readable by other programs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import threading

import numpy as np
import pytest

from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.runtime.answers import Classes, Embeddings
from ran_deploy.runtime.pipeline import Result
from ran_deploy.runtime.result_files import open_sink
from ran_deploy.runtime.sinks import CsvSink, JsonlSink

# Probabilities 0.25, 0, 0 and 0.75.
GOOD = Result(index=0, name="a.jpg", logits=np.float32([0, -np.inf, -np.inf, np.log(3)]))
BROKEN = Result(index=1, name="b\n\udcff.jpg", error='not an "image"')
CLASSES = Classes(4, top_k=3, labels=("", "b", "c", "Dress, long"))


def write_some(path, answers=CLASSES) -> None:
    with open_sink(path, answers) as sink:
        sink.write(GOOD)
        sink.write(BROKEN)


def test_jsonl_has_one_object_a_line_with_the_same_keys(tmp_path):
    write_some(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines)
    assert list(first) == ["source", "predictions", "error"]
    assert first["predictions"] == [
        {"index": 3, "label": "Dress, long", "probability": pytest.approx(0.75), "logit": pytest.approx(np.log(3))},
        {"index": 0, "label": "", "probability": pytest.approx(0.25), "logit": 0.0},
        {"index": 1, "label": "b", "probability": 0.0, "logit": None},
    ]
    assert second == {"source": "b\n\\udcff.jpg", "predictions": [], "error": 'not an "image"'}


def test_csv_has_one_row_a_prediction_and_one_for_an_error(tmp_path):
    write_some(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["source"], row["rank"], row["index"], row["label"]) for row in rows] == [
        ("a.jpg", "1", "3", "Dress, long"),
        ("a.jpg", "2", "0", ""),
        ("a.jpg", "3", "1", "b"),
        ("b\n\\udcff.jpg", "", "", ""),
    ]
    assert [row["error"] for row in rows] == ["", "", "", 'not an "image"']
    assert float(rows[0]["probability"]) == 0.75


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a", "-a.jpg", "@SUM(A1)", "\tx"])
def test_csv_text_is_never_a_formula(tmp_path, name):
    with CsvSink(tmp_path / "out.csv", Classes(1, labels=[name])) as sink:
        sink.write(Result(index=0, name=name, logits=np.float32([-2])))
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        row = list(csv.reader(stream))[1]
    assert (row[0], row[3], row[5]) == ("'" + name, "'" + name, "-2")


def test_embeddings_are_one_column_or_one_list_with_the_digits_of_float32(tmp_path):
    row = np.float32([0.1, -2.5, 1e-30])
    for name in ("out.csv", "out.jsonl"):
        with open_sink(tmp_path / name, Embeddings(3)) as sink:
            sink.write(Result(index=0, name="a.jpg", logits=row))
            sink.write(BROKEN)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["source", "f0", "f1", "f2", "error"]
    assert rows[1] == ["a.jpg", "0.1", "-2.5", "1e-30", ""]
    assert rows[2][1:] == ["", "", "", 'not an "image"']
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert first == {"source": "a.jpg", "embedding": [0.1, -2.5, 1e-30], "error": None}
    assert second["embedding"] is None


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_the_file_stands_in_its_place_only_when_it_is_whole(tmp_path, name):
    path = tmp_path / name
    path.write_text("before")
    sink = open_sink(path, CLASSES)
    sink.write(GOOD)
    assert path.read_text() == "before"
    sink.close()
    sink.close()
    assert "a.jpg" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("before")
    with contextlib.suppress(KeyboardInterrupt), open_sink(path, CLASSES) as sink:
        sink.write(GOOD)
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_refused_at_once(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write .*out\.csv \(No such file"):
        CsvSink(tmp_path / "missing" / "out.csv", CLASSES)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        JsonlSink(tmp_path / "folder.jsonl", CLASSES)
    with pytest.raises(ConfigError, match=r"\.jsonl, \.csv, \.npy; found \.xlsx"):
        open_sink(tmp_path / "out.xlsx", CLASSES)


def test_a_full_disk_is_an_error_of_one_line(tmp_path):
    (tmp_path / "full.csv").symlink_to("/dev/full")
    sink = CsvSink(tmp_path / "full.csv", CLASSES)
    sink.write(GOOD)
    with pytest.raises(OutputError, match="No space left"):
        sink.close()


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.csv").write_text("before")
    (tmp_path / "link.csv").symlink_to("real.csv")
    write_some(tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert "a.jpg" in (tmp_path / "real.csv").read_text()


def test_a_pipe_is_written_to_directly(tmp_path):
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=write_some, args=(path,))
    writer.start()
    with path.open() as stream:
        assert len(stream.readlines()) == 2
    writer.join()
    assert path.is_fifo()
