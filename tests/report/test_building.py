"""A report repeats the first measured engine, passes only if all measured ones do, and names classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ran_deploy.errors import ConfigError
from ran_deploy.report import UnreadableImage, engine_report
from ran_deploy.verification import SelfTestResult, compare, self_test


@pytest.fixture
def failed_self_test() -> SelfTestResult:
    recorded, inputs = np.eye(4, dtype=np.float32), np.zeros((4, 2, 3, 3), np.uint8)
    return self_test(lambda x: np.ones((len(x), 4)), inputs, recorded, spread=0.0, max_batch=1)


def test_the_top_repeats_the_first_measured_engine(engines, report_of):
    openvino, onnxruntime, estimate = engines
    report = report_of(estimate, onnxruntime, openvino)
    assert (report.backend, report.estimate) == ("onnxruntime", False)
    for name in ("images", "top1_reference", "top1_engine", "drop_pp", "drop_ci95_pp", "agreement", "precision"):
        assert getattr(report, name) == getattr(onnxruntime, name)
    assert [engine.backend for engine in report.engines] == ["tensorrt", "onnxruntime", "openvino"]


def test_it_passes_only_if_every_measured_engine_does(engines, report_of):
    openvino, onnxruntime, _ = engines
    assert [engine.passed for engine in (openvino, onnxruntime)] == [True, False]
    assert report_of(openvino).passed
    report = report_of(openvino, onnxruntime)
    assert not report.passed
    assert report.verdict.startswith("onnxruntime: top-1 drop is")


def test_unreadable_images_change_no_figure_and_the_verdict_says_so(engines, report_of):
    unreadable = [UnreadableImage(file=f"{i}.png", reason="the file is empty (0 bytes).") for i in range(13)]
    without, report = report_of(engines[0]), report_of(engines[0], unreadable=unreadable)
    assert (report.passed, report.images, report.engines) == (without.passed, 2000, without.engines)
    assert (without.unreadable, without.unreadable_images) == (0, ())
    assert (report.unreadable, report.unreadable_images) == (13, tuple(unreadable[:10]))
    sentence = " Of 2,013 images 13 cannot be read; this is about the rest."
    assert report.verdict == without.verdict + sentence


def test_an_estimate_decides_only_where_nothing_was_measured(compared, engines, report_of):
    estimate = engine_report(
        backend="tensorrt", precision="int8", comparison=compared(0.6), max_drop_pp=1.0, estimate=True
    )
    assert report_of(engines[0], estimate).passed
    alone = report_of(estimate)
    assert (alone.passed, alone.estimate) == (False, True)


def test_classes_and_files_have_names_or_else_numbers(compared, class_names):
    comparison = compared(0.6)
    named = engine_report(
        backend="openvino", precision="int8", comparison=comparison, class_names=class_names, files={5: "a.png"}
    )
    plain = engine_report(backend="openvino", precision="int8", comparison=comparison)
    worst = comparison.disagreements[0]
    assert named.changed[0].reference == class_names[worst.reference]
    assert named.changed[0].label == class_names[worst.label]
    assert plain.changed[0].engine == str(worst.engine)
    assert {image.file for image in named.changed} <= {None, "a.png"}
    assert [flip.images for flip in named.flips] == [flip.images for flip in comparison.flips]
    assert named.changed_images == comparison.disagreement_count > len(named.changed)


def test_accuracy_is_in_percent_and_points(compared):
    comparison = compared(0.6)
    report = engine_report(backend="openvino", precision="int8", comparison=comparison)
    outcome = comparison.accuracy.outcome
    assert report.drop_pp == pytest.approx(report.top1_reference - report.top1_engine)
    assert report.drop_pp == pytest.approx(100 * (report.lost - report.gained) / report.images)
    assert (report.drop_ci95_pp, report.mcnemar_p) == (outcome.drop_ci95_pp, outcome.mcnemar_p)
    assert report.agreement == pytest.approx(100 - 100 * report.changed_images / report.images)


def test_without_a_budget_data_alone_never_fails(compared):
    report = engine_report(backend="openvino", precision="int8", comparison=compared(0.6))
    assert report.passed
    assert "no budget was set (--max-drop)" in report.verdict


def test_without_labels_there_is_no_accuracy(compared):
    report = engine_report(backend="openvino", precision="int8", comparison=compared(0.6, labelled=False))
    assert (report.top1_engine, report.drop_pp, report.mcnemar_p) == (None, None, None)
    assert report.agreement < 100
    assert "there are no labels" in report.verdict


def test_a_failed_self_test_fails_the_engine_whatever_the_accuracy(compared, failed_self_test):
    report = engine_report(
        backend="openvino",
        precision="int8",
        comparison=compared(0.05),
        self_test=failed_self_test,
        max_drop_pp=5.0,
    )
    assert not report.passed
    assert report.verdict.startswith("The golden self-test failed at batch 1")


def test_the_self_test_alone_makes_a_report(failed_self_test):
    report = engine_report(backend="openvino", precision="int8", self_test=failed_self_test)
    assert (report.passed, report.images, report.agreement) == (False, 0, None)


@pytest.mark.parametrize("labelled", [False, None])
def test_a_budget_without_labels_is_refused(compared, failed_self_test, labelled):
    comparison = None if labelled is None else compared(0.05, labelled=False)
    with pytest.raises(ConfigError, match="--max-drop"):
        engine_report(
            backend="openvino",
            precision="int8",
            comparison=comparison,
            self_test=failed_self_test,
            max_drop_pp=1.0,
        )


def test_nothing_measured_is_refused(report_of):
    with pytest.raises(ConfigError, match="Nothing was measured of openvino"):
        engine_report(backend="openvino", precision="int8")
    with pytest.raises(ConfigError, match="no engine to report on"):
        report_of()


@pytest.fixture(scope="module")
def guessing():
    """The same engine under labels that belong to another network."""
    rng = np.random.default_rng(9)
    logits, labels = rng.standard_normal((500, 10)), np.arange(500) % 10
    numbers = np.arange(500)[:, None]
    return compare(lambda x: logits[x[:, 0]], lambda x: logits[x[:, 0]], [(numbers, labels)])


def test_a_reference_that_guesses_is_warned_of_without_a_budget(guessing, report_of):
    engine = engine_report(backend="openvino", precision="int8", comparison=guessing)
    report = report_of(engine, replace(engine, backend="onnxruntime"), max_drop_pp=None)
    assert report.passed
    assert len(report.warnings) == 1
    words = f"{engine.top1_reference:.2f} % of 500 images, where always giving the most frequent label gets 10.00 %"
    assert words in report.warnings[0]


def test_a_budget_cannot_be_judged_with_a_reference_that_guesses(guessing, report_of):
    engine = engine_report(backend="openvino", precision="int8", comparison=guessing, max_drop_pp=50)
    report = report_of(engine, max_drop_pp=50)
    assert (report.passed, len(report.warnings)) == (False, 1)
    assert report.verdict.startswith("The budget of 50 cannot be judged")


def test_there_is_no_warning_where_the_labels_fit(engines, report_of):
    assert report_of(*engines).warnings == ()
