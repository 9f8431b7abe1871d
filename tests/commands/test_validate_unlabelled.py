"""ran-validate --unlabelled: how often classes change on images without labels bounds the drop."""

from __future__ import annotations

import json
import re

import pytest
from scipy.stats import beta

from ran_deploy.verification.sequential import anytime_upper


def certify(call, demo, *arguments):
    return call("ran-validate", demo.bundle, "--cache-dir", demo.cache, "--unlabelled", *arguments)


def certificate_of(outcome) -> dict:
    return json.loads(outcome.out)["engines"][0]["certificate"]


@pytest.fixture(scope="module")
def other(demo, tmp_path_factory):
    """A checkpoint whose classes are in another order: most images change theirs."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    with safe_open(demo.checkpoint, "pt") as content:
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (it is no dictionary)
        weights["classifier.weight"] = weights["classifier.weight"].flip(0)
        save_file(weights, path, metadata=content.metadata())
    return path


def test_a_budget_is_proven_with_no_more_images_than_that_takes(call, demo, tmp_path):
    outcome = certify(
        call, demo, demo.test, "--max-drop", "3", "--json", "--report", tmp_path / "x.html", "--no-details"
    )
    certificate = certificate_of(outcome)
    assert outcome.status == 0, outcome.err
    assert (certificate["proven"], certificate["available"], certificate["changed"]) == (True, 512, 0)
    images = certificate["images"]
    assert anytime_upper(0, images) <= 0.03 < anytime_upper(0, images - 32)
    assert json.loads(outcome.out)["images"] == images
    assert "proven" in (tmp_path / "x.html").read_text()


def test_without_a_budget_all_images_give_the_exact_bound(call, demo):
    outcome = certify(call, demo, demo.test)
    assert outcome.status == 0
    bound = 100 * beta.ppf(0.95, 1, 512)
    (written,) = set(re.findall(r"at most ([\d.]+) (?:%|points)", outcome.out))
    assert bound <= float(written) < bound + 0.01
    assert "After all 512 images (order by seed 0) 0 change class" in outcome.out
    for words in ("bundle    demo, digest ", "reference the bundle's FP32 graph", "assumes   The images are"):
        assert words in outcome.out


def test_what_cannot_be_proven_fails_and_says_how_many_more_images_would_do(call, demo):
    outcome = certify(call, demo, demo.test, "--max-drop", "0.1", "--backend", "all", "--json")
    report = json.loads(outcome.out)
    assert (outcome.status, report["passed"]) == (1, False)
    assert [engine["estimate"] for engine in report["engines"]] == [False, False, True]
    assert all(engine["certificate"]["images"] == 512 for engine in report["engines"])
    assert re.search(r"not proven: about [\d,]+ more images would do, if still none changes class", report["verdict"])


def test_a_budget_that_is_out_of_reach_ends_the_test_early(call, demo, other):
    outcome = certify(call, demo, demo.test, "--reference", other, "--max-drop", "1", "--json")
    certificate = certificate_of(outcome)
    assert outcome.status == 1
    assert certificate["images"] == 32
    assert certificate["at_least_percent"] > 1
    assert "Labelled images may still show" in certificate["text"]
    assert "Which layers lose most" in outcome.err


def test_changed_images_are_told_by_their_place_in_the_data_set(call, demo, other):
    outcome = certify(call, demo, demo.test, "--reference", other, "--limit", "40", "--json")
    engine = json.loads(outcome.out)["engines"][0]
    assert engine["certificate"]["available"] == 40
    assert engine["changed_images"] == engine["certificate"]["changed"] > 20
    assert all(image["file"] == f"test.npz[{image['index']}]" for image in engine["changed"])
    assert max(image["index"] for image in engine["changed"]) > 100


def test_a_folder_needs_no_classes_and_its_broken_images_are_counted(call, demo, tmp_path):
    for name in ("bag.png", "coat.png"):
        (tmp_path / name).write_bytes((demo.images / name).read_bytes())
        (tmp_path / f"copy of {name}").write_bytes((demo.images / name).read_bytes())
    (tmp_path / "\x1b[2Jempty.png").touch()
    outcome = certify(call, demo, tmp_path, "--max-drop", "1")
    assert outcome.status == 1
    assert "After all 4 images" in outcome.out
    assert "Of 5 images 1 cannot be read; this is about the rest." in outcome.out
    assert "WARNING: 2 of 4 images are exact copies of others" in outcome.out
    assert "\x1b" not in outcome.out


def test_images_used_for_calibration_are_refused(call, demo):
    certify(call, demo, demo.calibration).assert_refused("used for calibration")


REFUSED = {
    "two kinds of data": (["--data", "."], "choose one"),
    "pairs": (["--pairs", "x.txt"], "--data"),
    "a budget of nothing": (["--max-drop", "0"], "no number of images"),
    "a budget of everything": (["--max-drop", "100"], "below 100"),
    "a negative seed": (["--seed", "-1"], "0 or more"),
    "no limit": (["--limit", "0"], "--limit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line(case, call, demo):
    options, words = REFUSED[case]
    certify(call, demo, demo.images, *options).assert_refused(words)


def test_a_seed_orders_images_without_labels_only(call, demo):
    outcome = call("ran-validate", demo.bundle, "--data", demo.test, "--seed", "1")
    outcome.assert_refused("--unlabelled")
