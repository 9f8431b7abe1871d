"""The page's sections on what images without labels prove, and on two bundles compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ran_deploy.report import engine_report, render_html, report_to_json
from ran_deploy.report.schema import BundleComparison, BundleDifference
from ran_deploy.verification.certificate import certify

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def certified(compared):
    """Build the report of an engine on 2,000 images without labels."""

    def build(changed: int, max_drop_pp: float | None):
        certificate = certify(changed, 2000, available=5000, seed=11, max_drop_pp=max_drop_pp)
        comparison = compared(0.05, labelled=False)
        return engine_report(
            backend="openvino",
            precision="int8",
            comparison=comparison,
            certificate=certificate,
            max_drop_pp=max_drop_pp,
        )

    return build


@pytest.mark.parametrize(("changed", "passed", "word"), [(1, True, "proven"), (50, False, "not proven")])
def test_a_certificate_takes_the_place_of_labels(changed, passed, word, certified, report_of):
    engine = certified(changed, 0.5)
    report = report_of(engine, max_drop_pp=0.5)
    assert (engine.passed, report.passed) == (passed, passed)
    assert report.verdict == engine.certificate.text
    page = render_html(report)
    assert "Certificate without labels" in page
    assert "2,000 of 5,000" in page
    assert f">{word}</span>" in page
    assert b'"seed": 11' in report_to_json(report)


def test_without_a_budget_a_certificate_is_measured_and_not_passed(certified, report_of):
    page = render_html(report_of(certified(1, None), max_drop_pp=None))
    assert '<strong class="plain">Measured' in page
    assert "not proven" not in page


def test_labelled_images_need_no_certificate(report):
    page = render_html(report)
    assert "Certificate without labels" not in page
    assert "Compared with" not in page


def test_what_bundles_differ_in_is_shown_and_trusted_in_nothing(report):
    differences = (BundleDifference(what="checkpoint", reference="old.pth", bundle=HOSTILE),)
    other = BundleComparison(bundle=replace(report.bundle, name=HOSTILE), precision="fp32", differences=differences)
    page = render_html(replace(report, compared=other))
    assert "<script>" not in page
    assert page.count("&lt;script&gt;alert(") >= 2
    assert "old.pth" in page


def test_bundles_without_a_difference_say_so(report):
    other = BundleComparison(bundle=report.bundle, precision="int8", differences=())
    assert "Nothing differs" in render_html(replace(report, compared=other))
