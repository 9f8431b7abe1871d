from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ran_deploy
from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle

# The samples are one image of each class; the demo network knows these well. The file name says which class it is.
LABELS = {"trouser.png": "Trouser", "sandal.png": "Sandal", "ankle-boot.png": "Ankle boot"}


def huge_png_header() -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0" * 64


@pytest.fixture
def mixed(demo, tmp_path) -> Path:
    """Good images with broken ones between them."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, name in enumerate(LABELS):
        shutil.copy(demo.images / name, folder / f"{2 * number}.png")
    (folder / "1.png").write_text("this is no image")
    (folder / "3.png").write_bytes(b"")
    (folder / "5.png").write_bytes(huge_png_header())
    return folder


def infer(call, demo, *arguments):
    return call("ran-infer", demo.bundle, *arguments, "--cache-dir", demo.cache)


def test_broken_images_are_results_with_errors_among_the_others_in_order(call, demo, mixed, tmp_path):
    output = tmp_path / "results.jsonl"
    outcome = infer(call, demo, mixed, "--output", output, "--batch", 2)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert outcome.status == 1
    assert [Path(row["source"]).name for row in rows] == [f"{i}.png" for i in range(6)]
    assert [row["predictions"][0]["label"] for row in rows[::2]] == list(LABELS.values())
    for row, words in zip(rows[1::2], ("not an image", "empty", "40000x40000"), strict=True):
        assert row["predictions"] == []
        assert words in row["error"]
    assert "6 images, 3 failed" in outcome.err


def test_csv_has_one_row_a_class_and_one_for_an_error(call, demo, mixed, tmp_path):
    output = tmp_path / "results.csv"
    outcome = infer(call, demo, mixed / "0.png", mixed / "1.png", "--top-k", 3, "--output", output)
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert outcome.status == 1
    assert [row["rank"] for row in rows] == ["1", "2", "3", ""]
    assert rows[0]["label"] == "Trouser"
    assert 0 < sum(float(row["probability"]) for row in rows[:3]) <= 1
    assert "not an image" in rows[3]["error"]


def test_json_is_one_object_a_line_and_nothing_else_on_standard_output(call, demo, mixed):
    outcome = infer(call, demo, f"{mixed}/[02].png", "--json")
    assert outcome.status == 0
    assert [Path(json.loads(line)["source"]).name for line in outcome.out.splitlines()] == ["0.png", "2.png"]


def test_arrays_and_the_python_interface_agree_with_files_to_the_digit(call, demo, tmp_path, rng):
    images = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", images=images)
    outcome = infer(call, demo, tmp_path / "a.npy", tmp_path / "b.npz", "--json", "--backend", "onnxruntime")
    rows = [json.loads(line)["predictions"][0] for line in outcome.out.splitlines()]
    with ran_deploy.load(demo.bundle, "onnxruntime", cache_dir=demo.cache) as predictor:
        expected = [best[0] for best in predictor.predict(images)]
    assert rows[:5] == rows[5:]
    assert [row["index"] for row in rows[:5]] == [best.index for best in expected]
    np.testing.assert_allclose([row["logit"] for row in rows[:5]], [best.logit for best in expected], rtol=1e-5)


def test_a_list_of_files_comes_from_standard_input(script, demo, mixed):
    listed = "".join(f"{mixed / name}\n" for name in ("4.png", "0.png"))
    done = script("ran-infer", demo.bundle, "-", "--json", "--cache-dir", demo.cache, input=listed)
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line)["predictions"][0]["label"] for line in done.stdout.splitlines()]
    assert labels == ["Ankle boot", "Trouser"]


@pytest.mark.parametrize(("listed", "words"), [("", "names no files"), ("a.png\0b.png\0", "separated by NUL")])
def test_a_list_that_names_nothing_is_refused_like_an_empty_folder(script, demo, tmp_path, listed, words):
    output = tmp_path / "results.jsonl"
    done = script("ran-infer", demo.bundle, "-", "--output", output, "--cache-dir", demo.cache, input=listed)
    assert done.returncode == 2
    assert done.stderr.startswith("ran-infer: The list on stdin ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_listed_name_need_not_be_utf_8(script, demo, tmp_path):
    (tmp_path / "list").write_bytes(b"caf\xe9.png\n")
    with (tmp_path / "list").open() as listed:
        env = {"PYTHONIOENCODING": "utf-8:strict"}
        done = script("ran-infer", demo.bundle, "-", "--cache-dir", demo.cache, stdin=listed, env=env)
    assert done.returncode == 1
    assert r"error: caf\udce9.png: cannot be read (No such file" in done.stdout


REFUSED = {
    "empty folder": (["{}/empty"], "holds no image"),
    "nothing matches": (["{}/*.jpg"], "Nothing matches"),
    "output of unknown kind": (["{}/x.png", "--output", "{}/x.txt"], ".jsonl, .csv, .npy"),
    "output under a file": (["{}/x.png", "--output", "{}/file/x.csv"], "Cannot write"),
    "no inputs": ([], "INPUTS"),
    "batch of nothing": (["{}/x.png", "--batch", "0"], "--batch"),
    "batch beyond the engine": (["{}/x.png", "--batch", "33"], "at most 32 images"),
    "unknown backend": (["{}/x.png", "--backend", "abacus"], "abacus"),
    "backend that is not here": (["{}/x.png", "--backend", "tensorrt"], "tensorrt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case, call, demo, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    arguments, words = REFUSED[case]
    infer(call, demo, *(argument.format(tmp_path) for argument in arguments)).assert_refused(words)


@pytest.mark.parametrize("kind", ["missing", "text", "folder"])
def test_what_is_no_bundle_is_refused(kind, call, demo, tmp_path):
    path = tmp_path / "x.ran"
    if kind == "text":
        path.write_text("no bundle")
    if kind == "folder":
        path.mkdir()
    call("ran-infer", path, demo.images).assert_refused(str(path))


def start(demo, *arguments: object, **settings: object) -> subprocess.Popen:
    command = [str(Path(sys.executable).parent / "ran-infer"), str(demo.bundle), *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, "--cache-dir", str(demo.cache)], text=True, env=env, **settings)


def test_an_interrupt_finishes_what_is_in_flight_and_the_file_is_whole(demo, tmp_path):
    total = 100_000
    np.lib.format.open_memmap(tmp_path / "many.npy", mode="w+", dtype=np.uint8, shape=(total, 32, 32, 3))
    output = tmp_path / "results.jsonl"
    with start(demo, tmp_path / "many.npy", "--output", output, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not any(file.stat().st_size for file in tmp_path.glob(".results*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert 0 < len(rows) < total
    assert [row["source"] for row in rows] == [f"{tmp_path}/many.npy[{i}]" for i in range(len(rows))]
    assert all(row["error"] is None for row in rows)
    assert f"{len(rows)} images" in errors
    assert not list(tmp_path.glob(".results*"))


def test_a_reader_that_has_seen_enough_is_no_error(demo):
    with start(demo, demo.test, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert "[0]" in process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0
    assert errors == ""


def test_a_full_disk_is_one_line(demo):
    with Path("/dev/full").open("w") as full, start(demo, demo.test, stdout=full, stderr=subprocess.PIPE) as process:
        errors = process.stderr.read()
    assert process.returncode == 2
    assert errors == "ran-infer: cannot write any further (No space left on device).\n"


def test_a_file_name_cannot_steer_the_terminal(call, demo, tmp_path):
    shutil.copy(demo.images / "bag.png", tmp_path / "two\nlines \x1b[31mred.png")
    outcome = infer(call, demo, tmp_path)
    assert len(outcome.out.splitlines()) == 1
    assert r"two\nlines \x1b[31mred.png" in outcome.out


def test_a_class_name_cannot_steer_the_terminal(call, demo, tmp_path):
    source = open_bundle(demo.bundle)
    labels = tuple(f"\x1b[2J\r{label}" for label in source.manifest.labels)
    files = {name: source.read(name) for name in source.manifest.files}
    write_bundle(tmp_path / "hostile.ran", replace(source.manifest, labels=labels), files)
    outcome = call("ran-infer", tmp_path / "hostile.ran", demo.images / "bag.png", "--backend", "onnxruntime")
    assert outcome.status == 0, outcome.err
    assert r"\x1b[2J\rBag " in outcome.out
    assert "\x1b" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("option", "inside"), [("--output", "results.jsonl"), ("--attention", "."), ("--attention", "new")]
)
def test_nothing_is_written_into_a_bundle(call, attentive, demo, tmp_path, option, inside):
    bundle = shutil.copytree(attentive.bundle, tmp_path / "copy.ran")
    before = sorted(bundle.rglob("*"))
    outcome = call("ran-infer", bundle, demo.images, option, bundle / inside)
    outcome.assert_refused("is inside the bundle")
    assert sorted(bundle.rglob("*")) == before


def test_json_and_an_output_file_are_one_too_many(call, demo, tmp_path):
    infer(call, demo, demo.images, "--json", "--output", tmp_path / "x.jsonl").assert_refused("choose one")
    assert not (tmp_path / "x.jsonl").exists()
