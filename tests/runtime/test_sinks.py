"""Result files: whole or absent, and readable by other programs."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import threading

import pytest

from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.runtime.pipeline import Result
from ran_deploy.runtime.postprocess import Prediction
from ran_deploy.runtime.sinks import CsvSink, JsonlSink, open_sink

BEST = [Prediction(3, "Dress, long", 0.75, 2.5), Prediction(0, None, 0.25, float("nan"))]


def write_some(path) -> None:
    with open_sink(path) as sink:
        sink.write(Result(index=0, name="a.jpg"), BEST)
        sink.write(Result(index=1, name="b\n\udcff.jpg", error='not an "image"'), [])


def test_jsonl_has_one_object_a_line_with_the_same_keys(tmp_path):
    write_some(tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")) for line in lines)
    assert first == {
        "source": "a.jpg",
        "predictions": [
            {"index": 3, "label": "Dress, long", "probability": 0.75, "logit": 2.5},
            {"index": 0, "label": None, "probability": 0.25, "logit": None},
        ],
        "error": None,
    }
    assert second == {"source": "b\n\\udcff.jpg", "predictions": [], "error": 'not an "image"'}


def test_csv_has_one_row_a_prediction_and_one_for_an_error(tmp_path):
    write_some(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["source"], row["rank"], row["index"], row["label"]) for row in rows] == [
        ("a.jpg", "1", "3", "Dress, long"),
        ("a.jpg", "2", "0", ""),
        ("b\n\\udcff.jpg", "", "", ""),
    ]
    assert [row["error"] for row in rows] == ["", "", 'not an "image"']
    assert float(rows[0]["probability"]) == 0.75


@pytest.mark.parametrize("name", ["=1+1.jpg", "+a", "-a.jpg", "@SUM(A1)", "\tx"])
def test_csv_text_is_never_a_formula(tmp_path, name):
    with CsvSink(tmp_path / "out.csv") as sink:
        sink.write(Result(index=0, name=name), [Prediction(0, name, 1.0, -2.0)])
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        row = list(csv.reader(stream))[1]
    assert (row[0], row[3], row[5]) == ("'" + name, "'" + name, "-2")


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_the_file_stands_in_its_place_only_when_it_is_whole(tmp_path, name):
    path = tmp_path / name
    path.write_text("before")
    sink = open_sink(path)
    sink.write(Result(index=0, name="a.jpg"), BEST)
    assert path.read_text() == "before"
    sink.close()
    sink.close()
    assert "a.jpg" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("before")
    with contextlib.suppress(KeyboardInterrupt), open_sink(path) as sink:
        sink.write(Result(index=0, name="a.jpg"), BEST)
        raise KeyboardInterrupt
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_place_is_refused_at_once(tmp_path):
    with pytest.raises(OutputError, match=r"Cannot write .*out\.csv \(No such file"):
        CsvSink(tmp_path / "missing" / "out.csv")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        JsonlSink(tmp_path / "folder.jsonl")
    with pytest.raises(ConfigError, match=r"\.jsonl or \.csv; found \.xlsx"):
        open_sink(tmp_path / "out.xlsx")


def test_a_full_disk_is_an_error_of_one_line(tmp_path):
    (tmp_path / "full.csv").symlink_to("/dev/full")
    sink = CsvSink(tmp_path / "full.csv")
    sink.write(Result(index=0, name="a.jpg"), BEST)
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
