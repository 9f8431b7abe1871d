"""The report of an embedding: vectors always, same or different where there are pairs, and no word of classes."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ran_deploy.datasets.pairs import ImagePairs
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Task
from ran_deploy.report import ValidationReport, engine_report, render_html, report_to_json
from ran_deploy.verification.embeddings import EmbeddingComparison, compare_embeddings

IMAGES, FEATURES = 400, 16
HOSTILE = "<script>alert('x')</script>"


def compared(noise: float, *, paired: bool = True, meaning: float = 3.0) -> EmbeddingComparison:
    """Compare vectors that differ by `noise`; images 2 i and 2 i + 1 show the same as far as `meaning` goes."""
    rng = np.random.default_rng(5)
    reference = meaning * rng.standard_normal((IMAGES // 2, FEATURES)).repeat(2, axis=0)
    reference += 2 * rng.standard_normal(reference.shape)
    engine = reference + noise * rng.standard_normal(reference.shape)
    first = np.arange(0, IMAGES, 2)
    same = np.arange(len(first)) % 2 == 0
    pairs = ImagePairs(first=first, second=np.where(same, first + 1, (first + 3) % IMAGES), same=same, origin="test")
    batches = [(np.arange(IMAGES)[:, None], None)]
    return compare_embeddings(
        lambda x: reference[x[:, 0]], lambda x: engine[x[:, 0]], batches, pairs=pairs if paired else None
    )


@pytest.fixture
def report(report_of) -> ValidationReport:
    files = {i: f"{HOSTILE}{i}.png" for i in range(IMAGES)}
    engines = [
        engine_report(backend=name, precision="int8", comparison=compared(noise), max_drop_pp=5.0, files=files)
        for name, noise in (("openvino", 0.1), ("onnxruntime", 2.0))
    ]
    made = report_of(*engines, max_drop_pp=5.0, task=Task.EMBEDDING)
    return replace(made, provenance=replace(made.provenance, pairs="100 of the same and 100 of different, test"))


def test_the_budget_is_judged_by_the_pairs(report):
    first, second = report.engines
    assert [engine.passed for engine in report.engines] == [True, False]
    assert report.verdict.startswith("onnxruntime: verification accuracy drop is")
    assert first.measure == "Verification accuracy"
    assert first.drop_pp == pytest.approx(
        first.embedding.pairs.accuracy_reference - first.embedding.pairs.accuracy_engine
    )
    assert first.drop_pp == pytest.approx(100 * (first.lost - first.gained) / 200)
    assert (first.top1_engine, first.agreement, first.logits) == (None, None, None)
    assert second.embedding.cosine.mean < first.embedding.cosine.mean


def test_the_json_reads_back_as_the_schema_says(report):
    data = report_to_json(report)
    assert msgspec.json.decode(data, type=ValidationReport) == report
    assert json.loads(data)["bundle"]["task"] == "embedding"


def test_the_page_shows_pairs_and_vectors_and_speaks_of_no_class(report):
    html = render_html(report, images={report.engines[0].embedding.turned[0].index: np.zeros((4, 4, 3), np.uint8)})
    for words in ("Same or different", "True accept rate", "Vectors", "What turned most on openvino", "10 features"):
        assert words in html
    for words in ("Top-1", "Same class", "classes", "Logits"):
        assert words not in html
    assert html.count("<svg") == 1
    assert "verification accuracy drop in points" in html
    assert html.count("data:image/png") == sum(
        image.index == report.engines[0].embedding.turned[0].index
        for engine in report.engines
        for image in engine.embedding.turned
    )
    assert "<script" not in html


def test_without_pairs_there_are_vectors_alone(report_of):
    engine = engine_report(backend="openvino", precision="int8", comparison=compared(0.1, paired=False))
    html = render_html(report_of(engine, max_drop_pp=None, task=Task.EMBEDDING))
    assert "without classes or --pairs there is no verification accuracy" in engine.verdict
    assert "Same or different" not in html
    assert "What turned most on openvino" in html
    with pytest.raises(ConfigError, match="--max-drop"):
        engine_report(backend="openvino", precision="int8", comparison=compared(0.1, paired=False), max_drop_pp=1.0)


def test_a_reference_that_guesses_is_warned_of_and_fails_the_budget(report_of):
    guess = compared(0.01, meaning=0.0)
    engine = engine_report(backend="openvino", precision="int8", comparison=guess, max_drop_pp=50.0)
    assert not engine.passed
    assert "of 200 pairs, where always giving the more frequent answer gets 50.00 %" in engine.warning
    assert "cannot be judged" in engine.verdict
