from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.bundle import open_bundle

PRECISION = ("--precision", "fp32")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch exploded",)


def broken_checkpoint(kind: str, demo, folder: Path) -> Path:
    path = folder / f"{kind}.pth"
    if kind == "missing":
        return path
    if kind == "folder":
        return folder
    content = {
        "truncated": demo.checkpoint.read_bytes()[:100_000],
        "text": b"this is no checkpoint\n",
        "empty": b"",
        "pickle": pickle.dumps(Bomb()),
    }
    path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "pickle", "missing", "folder"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(kind, call, demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = broken_checkpoint(kind, demo, tmp_path)
    call("ran-export", path, *PRECISION, "-o", tmp_path / "x.ran").assert_refused(str(path))
    assert not (tmp_path / "exploded").exists()
    assert not (tmp_path / "x.ran").exists()


def test_a_checkpoint_that_is_missing_matters_more_than_calibration_data_that_is(call, tmp_path):
    missing = tmp_path / "nope.pt"
    call("ran-export", missing, "-o", tmp_path / "x.ran").assert_refused(f"Checkpoint {missing} does not exist")


def test_an_unknown_layout_is_refused_with_some_of_its_keys(call, tiny, tmp_path):
    outcome = call("ran-export", tiny.checkpoint, *PRECISION, "-o", tmp_path / "x.ran")
    outcome.assert_refused("no known layout", "0.weight, 0.bias", "--model")


BAD_OPTIONS = {
    "int8 without calibration data": (["--precision", "int8"], "--calibration-data"),
    "unknown backend": (["--backend", "abacus"], "onnxruntime"),
    "batch out of order": (["--batch", "8:2:1"], "MIN <= OPT <= MAX"),
    "batch beyond reason": (["--batch", "1:1:99999999999"], "at most 4096 images"),
    "size beyond reason": (["--input-size", "99999999"], "at most 8192"),
    "two means": (["--mean", "0.5,0.5"], "three numbers"),
    "mean of 0..255": (["--mean", "123.7,116.3,103.5"], "Divide by 255"),
    "mean not a number": (["--mean", "nan"], "Means are"),
    "zero deviation": (["--std", "0"], "positive"),
    "resize": (["--resize", "large"], "--resize"),
    "no size": (["--input-size", "0x32"], "no size"),
    "crop and size differ": (["--crop", "32", "--input-size", "40"], "differ"),
    "too small": (["--input-size", "2"], "The smallest side it takes is"),
    "too small in width": (["--input-size", "64x3"], "64x3 is too small"),
    "no such option": (["--presicion", "fp32"], "--presicion"),
    "calibration table missing": (
        ["--precision", "int8", "--calibration-data", "x", "--calibration-table", "/nowhere"],
        "/nowhere: No",
    ),
    "calibration table for floats": (["--calibration-table", "x"], "is for INT8"),
    "calibration table and method": (["--calibration-table", "x", "--calibration", "mse"], "give one of them"),
    "calibration data missing": (["--calibration-data", "/nowhere"], "/nowhere does not exist"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused_in_one_line_before_anything_is_written(case, call, demo, tmp_path):
    options, words = BAD_OPTIONS[case]
    outcome = call("ran-export", demo.checkpoint, *PRECISION, "-o", tmp_path / "x.ran", *options)
    outcome.assert_refused(words)
    assert len(outcome.err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_labels_of_another_number_are_refused_before_the_export(call, demo, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    outcome = call("ran-export", demo.checkpoint, *PRECISION, "-o", tmp_path / "x.ran", "--labels", labels)
    outcome.assert_refused("2 classes", "10")
    assert "exporting" not in outcome.out


@pytest.mark.parametrize("place", ["{}/file/x.ran", "{}/missing/x.ran", "/proc/x.ran"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(place, call, demo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome = call("ran-export", demo.checkpoint, *PRECISION, "-o", place.format(tmp_path))
    outcome.assert_refused("Cannot write")
    assert outcome.out == ""


def test_a_bundle_is_replaced_only_when_asked_for(call, tiny, tmp_path):
    output = tmp_path / "tiny.ran"
    options = [*tiny.options, *PRECISION, "--backend", "onnxruntime"]
    first = call("ran-export", tiny.checkpoint, "-o", output, *options)
    assert first.status == 0, first.err
    digest = open_bundle(output).digest
    call("ran-export", tiny.checkpoint, "-o", output, *options).assert_refused("already exists", "--overwrite")
    assert open_bundle(output).digest == digest
    again = call("ran-export", tiny.checkpoint, "-o", output, *options, "--overwrite", "--batch", "2")
    assert again.status == 0, again.err
    assert open_bundle(output).manifest.batch.maximum == 2
    assert [path.name for path in tmp_path.glob("*.ran*")] == ["tiny.ran"]
    assert not list(tmp_path.glob(".*.partial-*"))
    assert list(open_bundle(output).manifest.dialects) == ["onnxruntime"]
    assert "centre crop 20x28, RGB, mean" in again.out


def test_json_on_standard_output_is_the_manifest_alone(demo):
    assert demo.manifest["precision"] == "int8"
    assert demo.manifest["files"] == json.loads((demo.bundle / "manifest.json").read_text())["files"]
    assert set(demo.manifest["dialects"]) == {"tensorrt", "openvino", "onnxruntime"}
    assert demo.manifest["calibration"]["images"] == 512
    passed = {engine["backend"]: engine["self_test"] for engine in demo.manifest["engines"]}
    assert passed["openvino"] == passed["onnxruntime"] == "passed"


def test_an_export_writes_nothing_into_the_cache_but_its_own_engines(script, tiny, tmp_path):
    env = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path), "PYTHONPATH": str(tiny.folder)}
    env["ORT_DISABLE_TELEMETRY"] = "0"
    options = [*tiny.options, *PRECISION, "--backend", "onnxruntime"]
    done = script("ran-export", tiny.checkpoint, "-o", tmp_path / "x.ran", *options, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ran-deploy"]


def test_fp16_is_packed_with_synthetic_golden_inputs_and_needs_no_data(call, tiny, tmp_path):
    options = [*tiny.options, "--precision", "fp16", "--pack", "--golden", "synthetic", "--backend", "openvino"]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "tiny.ran", *options)
    assert outcome.status == 0, outcome.err
    bundle = open_bundle(tmp_path / "tiny.ran.zip")
    bundle.verify()
    assert bundle.manifest.golden.source == "synthetic"
    np.save(tmp_path / "images.npy", np.full((3, 20, 28, 3), 99, np.uint8))
    rows = call("ran-infer", bundle.path, tmp_path / "images.npy", "--json").out.splitlines()
    assert [json.loads(row)["source"] for row in rows] == [f"{tmp_path}/images.npy[{i}]" for i in range(3)]


def test_int8_of_any_network_takes_golden_inputs_from_a_path(call, tiny, tmp_path, rng):
    (tmp_path / "train").mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (20, 28, 3), dtype=np.uint8)).save(tmp_path / "train" / f"{i}.png")
    (tmp_path / "train" / "broken.png").touch()
    golden = rng.integers(0, 256, (5, 20, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "golden.npz", images=golden)
    options = [*tiny.options, "--calibration-data", tmp_path / "train", "--golden", tmp_path / "golden.npz"]
    options += ["--backend", "onnxruntime", "--resize", "none"]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "tiny.ran", *options)
    assert outcome.status == 0, outcome.err
    bundle = open_bundle(tmp_path / "tiny.ran")
    assert bundle.manifest.golden.source == "images of golden.npz"
    note = "left out 1 of 41 calibration images that cannot be read; the first is 'broken.png': the file is empty"
    assert note in outcome.out
    assert bundle.manifest.notes[0].startswith(note)
    assert bundle.manifest.calibration.images == 40
    with np.load(tmp_path / "tiny.ran" / "golden.npz") as content:
        np.testing.assert_array_equal(content["inputs"][:5], golden)


def has_partial_files(folder) -> bool:
    try:
        return any(folder.glob(".*/*"))
    except FileNotFoundError:  # the empty folder that tries whether one can be made is gone already
        return False


def export_until(moment: str | None, tiny, output: Path, cache: Path) -> int:
    """Run an export and kill it when it reports `moment`; if that is "building", when it writes its first file."""
    script = str(Path(sys.executable).parent / "ran-export")
    options = [*tiny.options, *PRECISION, "--backend", "onnxruntime", "--json"]
    env = {**os.environ, "PYTHONPATH": str(tiny.folder), "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    command = [script, str(tiny.checkpoint), "-o", str(output), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env) as process:
        for line in process.stderr:
            if moment is not None and line.startswith(moment):
                while moment == "building" and process.poll() is None and not has_partial_files(output.parent):
                    time.sleep(0.0005)
                process.kill()
                break
        return process.wait()


def test_a_killed_export_leaves_no_half_bundle_and_the_next_one_cleans_up(tiny, tmp_path):
    output = tmp_path / "tiny.ran"
    for moment in ("checkpoint", "lowering", "building"):
        export_until(moment, tiny, output, tmp_path / "cache")
        if output.exists():  # the kill came too late: then it must be whole
            open_bundle(output).verify()
            output.rename(tmp_path / "finished.ran")
    assert export_until(None, tiny, output, tmp_path / "cache") == 0
    open_bundle(output).verify()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_names_in_a_checkpoint_cannot_steer_the_terminal(call, tmp_path):
    from ran_deploy.models import save_checkpoint
    from ran_deploy.models.network import build_network
    from ran_deploy.models.zoo import ARCHITECTURES

    module = build_network(ARCHITECTURES["compact-attention"].design, 3)
    save_checkpoint(tmp_path / "net.safetensors", module, architecture="\x1b[2Jnet")
    options = ["--precision", "fp32", "--backend", "onnxruntime", "-o", tmp_path / "net.ran"]
    outcome = call("ran-export", tmp_path / "net.safetensors", *options)
    assert "checkpoint: \\x1b[2Jnet" in outcome.out
    assert "\x1b" not in outcome.out + outcome.err
