from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.errors import OutputError
from ran_deploy.workflows.engines.golden import Golden, read_golden


def validate(call, demo, *arguments):
    return call("ran-validate", demo.bundle, *arguments, "--cache-dir", demo.cache)


def test_without_data_the_golden_inputs_are_run(call, demo):
    outcome = validate(call, demo, "--backend", "openvino", "--backend", "onnxruntime")
    assert outcome.status == 0
    assert outcome.out.count("golden self-test passed") >= 2


def test_details_are_printed_where_they_are_asked_for(call, demo):
    outcome = validate(call, demo, "--backend", "onnxruntime", "--details")
    assert outcome.status == 0, outcome.err
    assert re.search(r"layers of the onnxruntime graph furthest from FP32, of 83, on 32 images\n  stages", outcome.out)
    assert re.search(r"time    onnxruntime, batch 8: [\d.]+ ms, median of \d+; [\d.]+ of the FP32", outcome.out)
    assert re.search(r"size    onnxruntime: engine [\d.]+ MiB, graph [\d.]+ MiB, FP32 graph [\d.]+ MiB", outcome.out)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_report_that_cannot_be_written_loses_no_result(options, call, demo, tmp_path, monkeypatch):
    def fail(*_):
        raise OutputError("the disk is full")

    monkeypatch.setattr("ran_deploy.report.writing.write_json", fail)
    outcome = validate(
        call, demo, "--backend", "onnxruntime", "--report", tmp_path / "x.json", "--no-details", *options
    )
    outcome.assert_refused("the disk is full")
    assert "golden self-test passed" in outcome.out


def test_a_report_is_not_written_over_a_file_of_the_bundle(call, demo):
    before = (demo.bundle / "calibration.json").read_bytes()
    validate(call, demo, "--report", demo.bundle / "calibration.json").assert_refused("is inside the bundle")
    validate(call, demo, "--diagnose", "--diagnose-output", demo.bundle / "d").assert_refused("never changes")
    assert (demo.bundle / "calibration.json").read_bytes() == before
    assert not (demo.bundle / "d").exists()


@pytest.mark.parametrize("option", ["--data", "--unlabelled", "--compare", "--report"])
def test_a_path_too_long_to_ask_for_is_one_line(option, call, demo):
    validate(call, demo, option, "x" * 300 + ".json").assert_refused("File name too long")


@pytest.fixture(scope="module")
def few(demo, tmp_path_factory):
    """The first 96 test images, as a data set of their own."""
    with np.load(demo.test) as content:
        path = tmp_path_factory.mktemp("few") / "few.npz"
        np.savez(path, images=content["images"][:96], labels=content["labels"][:96])
    return path


def test_json_holds_the_numbers_of_a_pipeline_and_the_report_is_written(call, demo, few, tmp_path):
    options = ["--backend", "all", "--max-drop", "50", "--report", tmp_path / "x.html", "--json"]
    outcome = validate(call, demo, "--data", few, "--reference", demo.checkpoint, *options)
    report = json.loads(outcome.out)
    assert outcome.status == 0
    assert report["passed"] is True
    assert report["images"] == 96
    low, high = report["drop_ci95_pp"]
    assert low <= report["drop_pp"] <= high <= 50
    assert report["drop_pp"] == pytest.approx(report["top1_reference"] - report["top1_engine"])
    assert 90 < report["agreement"] <= 100
    assert [engine["estimate"] for engine in report["engines"]] == [False, False, True]
    assert "centre crop 32x32" in report["provenance"]["preprocessing"]
    assert len(report["layers"]["layers"]) == 83
    assert report["layers"]["images"] == 32
    assert {(speed["backend"], speed["batch"]) for speed in report["speeds"]} == {
        (backend, batch) for backend in ("openvino", "onnxruntime") for batch in (1, 8)
    }
    assert len(report["sizes"]) == 2
    assert report["calibration"]["images"] == 512
    page = (tmp_path / "x.html").read_text()
    assert "<html" in page
    assert "<h2>Layers</h2>" in page
    assert "<h2>Speed and size</h2>" in page


def test_a_budget_that_the_images_cannot_prove_fails_and_says_how_many_would(call, demo, few):
    outcome = validate(call, demo, "--data", few, "--max-drop", "0.01", "--json")
    report = json.loads(outcome.out)
    assert outcome.status == 1
    assert report["passed"] is False
    assert report["engines"][0]["images_needed"] > 96
    assert re.search(r"96 images cannot prove it; about [\d,]+ would", report["verdict"])


def test_images_used_for_calibration_are_refused(call, demo):
    outcome = validate(call, demo, "--data", demo.calibration)
    outcome.assert_refused("512 of 512 images", "used for calibration")


@pytest.fixture
def damaged(demo, tmp_path):
    """Two good images of different classes, and one that is empty and has a hostile name."""
    for name in ("trouser", "sandal"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(demo.images / f"{name}.png", tmp_path / "data" / name)
    (tmp_path / "data" / "sandal" / "\x1b[2Jempty.png").touch()
    return tmp_path / "data"


def test_images_that_cannot_be_read_are_counted_and_named(call, demo, damaged, tmp_path):
    outcome = validate(call, demo, "--data", damaged, "--report", tmp_path / "x.html", "--no-details")
    assert outcome.status == 0, outcome.err
    assert "cannot be read: sandal/\\x1b[2Jempty.png: the file is empty (0 bytes).\n" in outcome.out
    assert "\x1b" not in outcome.out
    assert "Images left out" in (tmp_path / "x.html").read_text()


def test_what_a_data_set_is_called_cannot_steer_the_terminal(call, demo, damaged):
    outcome = validate(call, demo, "--data", damaged.rename(damaged.with_name("\x1b[2Jdata")))
    assert r"3 images of \x1b[2Jdata" in outcome.err
    assert "\x1b" not in outcome.out + outcome.err


@pytest.mark.parametrize(("budget", "status"), [("99", 0), ("0.01", 1)])
def test_a_budget_is_judged_on_the_images_that_can_be_read_and_says_so(budget, status, call, demo, damaged):
    outcome = validate(call, demo, "--data", damaged, "--max-drop", budget, "--json")
    report = json.loads(outcome.out)
    assert outcome.status == status, outcome.err
    assert (report["images"], report["unreadable"]) == (2, 1)
    assert report["unreadable_images"][0]["reason"] == "the file is empty (0 bytes)."
    assert report["verdict"].endswith("Of 3 images 1 cannot be read; this is about the rest.")
    assert "Which layers lose most" not in outcome.err  # too few images: no layer is to blame


def test_changed_images_have_their_place_in_the_data_set(call, demo, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(demo.checkpoint, "pt") as content:
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no dictionary)
        weights["classifier.weight"] = weights["classifier.weight"].flip(0)  # most images change their class
        save_file(weights, tmp_path / "other.safetensors", metadata=content.metadata())
    arguments = ["--data", demo.test, "--limit", "20", "--reference", tmp_path / "other.safetensors", "--json"]
    engine = json.loads(validate(call, demo, *arguments).out)["engines"][0]
    assert engine["changed_images"] > 10
    assert all(image["file"] == f"test.npz[{image['index']}]" for image in engine["changed"])
    assert max(image["index"] for image in engine["changed"]) > 20


@pytest.fixture
def by_class(demo, tmp_path):
    """Copy test images into folders; the names are by label."""

    def write(names: dict[int, str], each: int = 4) -> Path:
        with np.load(demo.test) as content:
            images, labels = content["images"], content["labels"]
        for label, name in names.items():
            (tmp_path / "data" / name).mkdir(parents=True)
            for index in np.flatnonzero(labels == label)[:each]:
                Image.fromarray(images[index]).save(tmp_path / "data" / name / f"{index}.png")
        return tmp_path / "data"

    return write


def test_class_folders_are_the_bundles_classes_by_name(call, demo, by_class):
    data = by_class({9: "ankle_boot", 8: "Bag", 1: "trouser", 5: "SANDAL"})
    outcome = validate(call, demo, "--data", data, "--json")
    report = json.loads(outcome.out)
    assert report["top1_reference"] > 80
    assert (report["warnings"], report["provenance"]["labels"]) == ([], None)


def test_labels_that_do_not_fit_are_warned_of_everywhere(call, demo, by_class, tmp_path):
    data = by_class({label: f"class {(label + 1) % 10}" for label in range(10)})  # each image in the next one's place
    outcome = validate(call, demo, "--data", data, "--report", tmp_path / "x.html", "--no-details")
    assert outcome.status == 0
    assert "WARNING: The reference itself is right on" in outcome.out
    assert "numbered in sorted order" in outcome.err
    page = (tmp_path / "x.html").read_text()
    assert ">Warning<" in page
    assert "torchvision" in page
    outcome = validate(call, demo, "--data", data, "--max-drop", "50", "--json")
    report = json.loads(outcome.out)
    assert (outcome.status, report["passed"], len(report["warnings"])) == (1, False, 1)
    assert "WARNING: " in outcome.err


def test_class_folders_of_another_data_set_are_refused(call, demo, by_class):
    data = by_class({1: "trouser", 8: "horse"})
    validate(call, demo, "--data", data).assert_refused("'horse'", "10 classes", "0 to 9")


def test_one_image_is_spoken_of_in_the_singular(call, demo, by_class):
    outcome = validate(call, demo, "--data", by_class({8: "bag"}, each=1))
    assert "reading 1 image of data" in outcome.err
    assert " of 1 image, reference" in outcome.out
    assert "1 images" not in outcome.out + outcome.err


REFUSED = {
    "budget without data": (["--max-drop", "1"], "--data"),
    "reference without data": (["--reference", "x.pth"], "--data"),
    "budget over 100": (["--data", ".", "--max-drop", "101"], "0 to 100"),
    "limit of nothing": (["--data", ".", "--limit", "0"], "--limit"),
    "data missing": (["--data", "/nowhere"], "/nowhere does not exist"),
    "report of unknown kind": (["--report", "x.pdf"], ".html or .json"),
    "report in no folder": (["--report", "/nowhere/x.html"], "Cannot write"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case, call, demo):
    options, words = REFUSED[case]
    validate(call, demo, *options).assert_refused(words)


def test_one_flipped_byte_in_any_file_is_refused_by_validate(call, demo, tmp_path):
    bundle = tmp_path / "copy.ran"
    shutil.copytree(demo.bundle, bundle)
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert len(files) > 6
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        original, _ = path.read_bytes(), path.write_bytes(content)
        call("ran-validate", bundle, "--cache-dir", demo.cache).assert_refused(path.name)
        path.write_bytes(original)


@pytest.mark.parametrize("file", ["manifest.json", "golden.npz", "graphs/openvino.onnx"])
def test_one_flipped_byte_in_what_inference_uses_is_refused(file, call, demo, tmp_path):
    bundle = tmp_path / "copy.ran"
    shutil.copytree(demo.bundle, bundle)
    content = bytearray((bundle / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / file).write_bytes(content)
    outcome = call("ran-infer", bundle, demo.images, "--backend", "openvino")
    outcome.assert_refused(file.rpartition("/")[2])
    assert outcome.out == ""


def test_flipped_bytes_in_a_packed_bundle_are_refused(demo, call, tmp_path):
    source, packed = open_bundle(demo.bundle), tmp_path / "demo.ran.zip"
    write_bundle(packed, source.manifest, {name: source.read(name) for name in source.manifest.files}, pack=True)
    assert call("ran-validate", packed).status == 0
    content = packed.read_bytes()
    for name in ("golden.npz", "model.onnx", "manifest.json"):
        changed = bytearray(content)
        changed[content.index(name.encode()) + 4000] ^= 1  # stored, so behind the name in the local header
        packed.write_bytes(changed)
        call("ran-validate", packed).assert_refused(name)


@pytest.mark.parametrize("command", ["ran-validate", "ran-infer"])
def test_an_engine_with_other_outputs_than_recorded_is_not_used(command, call, demo, tmp_path):
    source = open_bundle(demo.bundle)
    golden = read_golden(source)
    wrong = {name: logits[:, ::-1] for name, logits in golden.logits.items()}
    files = {name: source.read(name) for name in source.manifest.files}
    files["golden.npz"] = Golden(inputs=golden.inputs, logits=wrong).to_bytes()
    forged = tmp_path / "forged.ran"
    write_bundle(forged, replace(source.manifest, name="forged"), files)
    arguments = [demo.images] if command == "ran-infer" else []
    outcome = call(command, forged, *arguments, "--backend", "openvino")
    outcome.assert_refused("failed the golden self-test", "not used", status=1)
    assert outcome.out == ""
