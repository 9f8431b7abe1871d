"""ran-validate --compare A.ran B.ran: engines of two bundles on the same images."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.precision import Precision
from ran_deploy.workflows.engines.golden import Golden, read_golden


@pytest.fixture(scope="module")
def rewritten(demo, tmp_path_factory):
    """Write the demo bundle again with another manifest and other files."""

    def write(name, files=None, **changes):
        source, path = open_bundle(demo.bundle), tmp_path_factory.mktemp("rewritten") / f"{name}.ran"
        content = {file: source.read(file) for file in source.manifest.files if not file.startswith("engines/")}
        write_bundle(path, replace(source.manifest, name=name, engines=(), **changes), content | (files or {}))
        return path

    return write


@pytest.fixture(scope="module")
def fp32(demo, rewritten):
    """The demo network in FP32, for ONNX Runtime alone."""
    source = open_bundle(demo.bundle)
    graph, golden = source.read("reference.onnx"), read_golden(source)
    record = replace(source.manifest.dialects["onnxruntime"], relative_l2=0.0, spread=0.0)
    expected = Golden(inputs=golden.inputs, logits=dict.fromkeys(("pytorch", "onnxruntime"), golden.logits["pytorch"]))
    files = {"model.onnx": graph, record.graph: graph, "golden.npz": expected.to_bytes()}
    changes = {"precision": Precision.FP32, "calibration": None, "dialects": {"onnxruntime": record}}
    return rewritten("fp32", files, **changes)


@pytest.fixture(scope="module")
def few(demo, tmp_path_factory):
    """The first 96 test images."""
    with np.load(demo.test) as content:
        path = tmp_path_factory.mktemp("few") / "few.npz"
        np.savez(path, images=content["images"][:96], labels=content["labels"][:96])
    return path


def compare(call, demo, reference, judged, *arguments):
    outcome = call("ran-validate", "--compare", reference, judged, "--cache-dir", demo.cache, *arguments)
    return outcome, json.loads(outcome.out) if "--json" in arguments and outcome.out else {}


def differences(report: dict) -> dict[str, tuple[str, str]]:
    return {d["what"]: (d["reference"], d["bundle"]) for d in report["compared"]["differences"]}


def test_the_first_bundle_is_the_reference_of_the_second_on_a_backend_both_have(call, demo, fp32, few, tmp_path):
    options = ["--data", few, "--max-drop", "20", "--report", tmp_path / "x.html", "--no-details", "--json"]
    outcome, report = compare(call, demo, fp32, demo.bundle, *options)
    assert outcome.status == 0, outcome.err
    assert [engine["backend"] for engine in report["engines"]] == ["onnxruntime"]
    assert (report["bundle"]["name"], report["compared"]["bundle"]["name"]) == ("demo", "fp32")
    assert differences(report)["precision"] == ("fp32", "int8")
    assert differences(report)["calibration"][0] == "none"
    before, after = differences(report)["size of the graph"]
    assert float(before.removesuffix(" MiB")) > 2 * float(after.removesuffix(" MiB"))
    assert "checkpoint" not in differences(report)
    assert report["engines"][0]["mcnemar_p"] <= 1
    assert 0 < report["engines"][0]["logits"]["relative_l2"] < 0.1
    assert "Compared with fp32" in (tmp_path / "x.html").read_text()


def test_the_figures_are_those_of_the_bundles_own_fp32_graph(call, demo, fp32, few):
    options = ["--data", few, "--backend", "onnxruntime", "--json"]
    _, compared = compare(call, demo, fp32, demo.bundle, *options)
    alone = json.loads(call("ran-validate", demo.bundle, "--cache-dir", demo.cache, *options).out)
    for figure in ("top1_reference", "top1_engine", "agreement", "drop_ci95_pp"):
        assert compared[figure] == alone[figure]
    assert compared["engines"][0]["logits"] == pytest.approx(alone["engines"][0]["logits"], rel=1e-3)


def test_a_bundle_does_not_differ_from_itself(call, demo, few):
    outcome, _ = compare(call, demo, demo.bundle, demo.bundle, "--data", few, "--max-drop", "10")
    assert outcome.status == 0
    assert "nothing differs" in outcome.out
    assert "agreement 100.00 % (0 images change class)" in outcome.out
    assert "relative L2 0.0000" in outcome.out


def test_each_bundle_prepares_images_with_its_own_recipe(call, demo, rewritten, few):
    recipe = open_bundle(demo.bundle).manifest.preprocessing
    shrunk = rewritten("shrunk", preprocessing=replace(recipe, resize=20))
    options = ["--data", few, "--backend", "openvino", "--json"]
    _, report = compare(call, demo, demo.bundle, shrunk, *options)
    alone = json.loads(call("ran-validate", demo.bundle, "--cache-dir", demo.cache, *options).out)
    small = json.loads(call("ran-validate", shrunk, "--cache-dir", demo.cache, *options).out)
    assert report["top1_reference"] == alone["top1_engine"]
    assert report["top1_engine"] == small["top1_engine"] < alone["top1_engine"]
    assert "resize shorter side to 20" in differences(report)["pre-processing"][1]


def test_classes_in_another_order_are_matched_by_name(call, demo, rewritten, few, tmp_path):
    labels = open_bundle(demo.bundle).manifest.labels
    np.savez(tmp_path / "named.npz", classes=np.array(labels), **np.load(few))
    turned = rewritten("turned", labels=tuple(name.upper() for name in labels[1:] + labels[:1]))
    outcome, report = compare(call, demo, demo.bundle, turned, "--data", tmp_path / "named.npz", "--json")
    assert outcome.status == 0, outcome.err
    # The graph is the same, so what it calls 'Bag' it now calls what comes after.
    expected = {(name.upper(), labels[(i + 1) % 10].upper()) for i, name in enumerate(labels)}
    flips = {(flip["reference"], flip["engine"]) for flip in report["engines"][0]["flips"]}
    assert report["agreement"] == 0
    assert flips <= expected
    assert len(flips) > 5
    assert report["top1_reference"] > 80


def test_changed_classes_and_images_are_printed(call, demo, rewritten, few):
    recipe = open_bundle(demo.bundle).manifest.preprocessing
    shrunk = rewritten("shrunk", preprocessing=replace(recipe, resize=20))
    outcome, _ = compare(call, demo, demo.bundle, shrunk, "--data", few, "--backend", "openvino")
    assert "shrunk, compared with demo as the reference" in outcome.out
    assert outcome.out.count("  flips   ") == 6
    assert outcome.out.count("  image   few.npz[") == 5


def test_without_labels_the_other_bundle_bounds_the_drop(call, demo, fp32):
    options = ["--unlabelled", demo.test, "--max-drop", "5", "--json"]
    outcome, report = compare(call, demo, fp32, demo.bundle, *options)
    certificate = report["engines"][0]["certificate"]
    assert outcome.status == 0
    assert certificate["proven"]
    assert certificate["images"] < 200
    assert report["provenance"]["reference"].endswith("fp32.ran (fp32), on the same backend")


def test_without_labels_each_bundle_still_has_its_own_recipe(call, demo, rewritten):
    recipe = open_bundle(demo.bundle).manifest.preprocessing
    shrunk = rewritten("shrunk", preprocessing=replace(recipe, resize=20))
    backends = ["--backend", "openvino", "--backend", "onnxruntime"]
    options = ["--unlabelled", demo.test, "--limit", "64", "--json", *backends]
    _, forth = compare(call, demo, demo.bundle, shrunk, *options)
    _, back = compare(call, demo, shrunk, demo.bundle, *options)
    changed = [[engine["certificate"]["changed"] for engine in report["engines"]] for report in (forth, back)]
    assert changed[0] == changed[1]
    assert min(changed[0]) > 5


def test_without_images_it_says_what_differs_and_proves_the_engine(call, demo, fp32):
    outcome, _ = compare(call, demo, fp32, demo.bundle)
    assert outcome.status == 0
    assert "precision" in outcome.out
    assert "fp32 -> int8" in outcome.out
    assert "golden self-test passed" in outcome.out


def test_images_that_either_was_calibrated_with_are_refused(call, demo, fp32):
    outcome, _ = compare(call, demo, demo.bundle, fp32, "--data", demo.calibration)
    outcome.assert_refused("used for calibration")


def test_other_classes_are_refused(call, demo, rewritten, few):
    labels = open_bundle(demo.bundle).manifest.labels
    other = rewritten("other", labels=("Hat", *labels[1:]))
    outcome, _ = compare(call, demo, demo.bundle, other, "--data", few)
    outcome.assert_refused("'Hat'", "same classes", "--labels")


def test_a_backend_that_one_was_exported_without_is_refused(call, demo, fp32, few):
    outcome, _ = compare(call, demo, fp32, demo.bundle, "--data", few, "--backend", "openvino")
    outcome.assert_refused("fp32.ran was exported without openvino")


def test_another_reference_beside_it_is_refused(call, demo, fp32, few):
    outcome, _ = compare(call, demo, fp32, demo.bundle, "--data", few, "--reference", demo.checkpoint)
    outcome.assert_refused("--compare", "--reference")


def test_what_is_no_bundle_is_refused(call, demo, tmp_path):
    outcome, _ = compare(call, demo, tmp_path / "nowhere.ran", demo.bundle)
    outcome.assert_refused("nowhere.ran does not exist")
