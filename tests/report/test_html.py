"""The page is well-formed, needs nothing else, shows what the report says, and trusts no name in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from ran_deploy.errors import OutputError
from ran_deploy.report import UnreadableImage, engine_report, render_html, write_html

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}$\\frac"


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def html(report) -> str:
    picture = np.full((5, 7, 3), 200, np.uint8)
    return render_html(report, images={image.index: picture for image in report.engines[0].changed})


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_verdict_comes_first_then_the_figures_of_every_engine(page):
    text = page.text
    order = [
        "Failed",
        "onnxruntime: top-1 drop is",
        "Accuracy",
        "Logits",
        "What changed on openvino",
        "Golden self-test",
    ]
    positions = [text.index(part) for part in [*order, "Provenance"]]
    assert positions == sorted(positions)


def test_numbers_of_the_verdict_have_true_minus_signs(engines, report_of):
    verdict = "Top-1 drop is -0.25 points (95 % interval -0.61 to +0.11)."
    text = Page(render_html(replace(report_of(engines[0]), verdict=verdict))).text
    assert "Top-1 drop is \N{MINUS SIGN}0.25 points (95 % interval \N{MINUS SIGN}0.61 to +0.11)." in text


def test_the_figures_are_the_reports(page, report):
    for engine in report.engines:
        assert f"{engine.top1_engine:.2f} %" in page.text
        assert f"{engine.agreement:.2f} %" in page.text
        assert f"{abs(engine.drop_ci95_pp[1]):.2f}" in page.text
    assert report.bundle.sha256 in page.text
    assert report.provenance.calibration in page.text


def test_there_is_a_chart_of_drops_and_one_of_flips_for_each_engine(page, report):
    assert page.count("svg") == 1 + len(report.engines)
    assert "budget 1" in page.text


def test_images_that_are_given_are_shown_and_named(page, report):
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    shown = {image.index for image in report.engines[0].changed}
    expected = sum(image.index in shown for engine in report.engines for image in engine.changed)
    assert len(pictures) == expected >= len(shown)
    assert all((attrs["src"] or "").startswith("data:image/png;base64,") for attrs in pictures)
    assert report.engines[0].changed[0].file in page.text


def test_nothing_is_loaded_from_anywhere(html):
    without_pictures = re.sub(r"base64,[\w+/=]*", "", html)
    assert not re.search(r"//\w|javascript:|@import|\burl\(\s*(?!['\"]?#)", without_pictures)
    for tag, attributes in Page(html).tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert (value or "").startswith(("data:image/png;base64,", "#"))


def test_charts_take_the_pages_colours_and_fonts(html):
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert charts
    for chart in charts:
        assert not re.search(r"#[0-9a-fA-F]{6}\b", re.sub(r'"#m\w+"|id="m\w+"', "", chart))
        assert "font-family" not in chart
        assert "<style" not in chart
        assert "currentColor" in chart


def test_no_id_occurs_twice(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def hostile_html(compared, report_of) -> str:
    names = [f"{HOSTILE}{i}" for i in range(10)]
    comparison = compared(0.6)
    files = {d.index: f"{HOSTILE}.png" for d in comparison.disagreements}
    engine = engine_report(
        backend="openvino",
        precision="int8",
        comparison=comparison,
        device={HOSTILE: HOSTILE},
        class_names=names,
        files=files,
    )
    report = report_of(engine, name=HOSTILE)
    strings = {"data": HOSTILE, "checkpoint": HOSTILE, "calibration": HOSTILE, "tools": {HOSTILE: HOSTILE}}
    return render_html(replace(report, provenance=replace(report.provenance, **strings)))


def test_hostile_names_are_text(hostile_html):
    page = Page(hostile_html)
    assert page.count("script") == 0
    assert "<script" not in hostile_html
    assert page.text.count(HOSTILE) > 40


def test_class_names_in_charts_are_text(hostile_html):
    chart = re.findall(r"<svg.*?</svg>", hostile_html, flags=re.DOTALL)[1]
    assert "&lt;script&gt;" in chart
    assert "<script" not in chart


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_without_a_warning(compared, report_of):
    names = ["狗", "猫", "собака", "γάτα", "كلب", "כלב", "犬", "고양이", "แมว", "🐈"]
    engine = engine_report(backend="openvino", precision="int8", comparison=compared(0.2), class_names=names)
    text = Page(render_html(report_of(engine))).text
    assert all(name in text for name in names)


def test_the_page_of_a_self_test_alone_has_no_accuracy(engines, report_of):
    engine = engine_report(backend="openvino", precision="int8", self_test=engines[0].self_test)
    page = Page(render_html(report_of(engine, max_drop_pp=None)))
    assert "The golden self-test passed" in page.text
    assert "Accuracy" not in page.text
    assert page.count("svg") == 0


def test_without_a_budget_nothing_is_called_passed(compared, report_of):
    engine = engine_report(backend="openvino", precision="int8", comparison=compared(0.1))
    text = Page(render_html(report_of(engine, max_drop_pp=None))).text
    assert "Measured" in text
    assert "assed" not in text


def test_without_labels_agreement_is_shown_and_accuracy_is_not(compared, report_of):
    engine = engine_report(backend="openvino", precision="int8", comparison=compared(0.1, labelled=False))
    page = Page(render_html(report_of(engine, max_drop_pp=None)))
    assert "have no labels" in page.text
    assert f"{engine.agreement:.2f} %" in page.text
    assert "McNemar p" not in page.text


def test_an_engine_equal_to_its_reference_has_a_page(compared, report_of):
    engine = engine_report(backend="onnxruntime", precision="fp32", comparison=compared(0.0), max_drop_pp=1.0)
    page = Page(render_html(report_of(engine)))
    assert "100.00 %" in page.text
    assert "Nothing: all 2,000 images keep the class of the reference." in page.text
    assert page.count("svg") == 1  # the drop; an empty matrix of changes is left out


def test_a_chart_that_shows_no_more_than_the_table_is_left_out(report_of, engines):
    few = replace(engines[0], flips=engines[0].flips[:10])
    page = Page(render_html(report_of(few)))
    assert page.count("svg") == 1
    assert all(name in page.text for flip in few.flips for name in (flip.reference, flip.engine))


def test_the_images_shown_are_called_what_they_are(engines, report_of):
    shown = engines[1]
    text = Page(render_html(report_of(shown))).text
    assert f"The 12 of {shown.changed_images} where the reference preferred its own class" in text
    one = replace(shown, changed=shown.changed[:1], flips=shown.flips[:1], changed_images=1)
    text = Page(render_html(report_of(one))).text
    assert "1 of 2,000 images gets another class" in text
    assert "Changed image " in text
    assert "preferred" not in text


def test_images_that_cannot_be_read_are_named_with_the_reason(engines, report_of):
    unreadable = [UnreadableImage(file=f"{HOSTILE}{i}.png", reason="the file is empty (0 bytes).") for i in range(37)]
    html = render_html(report_of(engines[0], unreadable=unreadable))
    page = Page(html)
    assert "37 images of 2,037 cannot be read, of which these are the first 10." in page.text
    assert page.text.count("the file is empty (0 bytes).") == page.text.count(HOSTILE) == 10
    assert "<script" not in html
    assert "left out" not in Page(render_html(report_of(engines[0]))).text


def test_what_an_engine_ran_with_is_said_of_measured_engines_only(page, report):
    for engine in report.engines:
        assert (f"{engine.backend} ran with" in page.text) == bool(engine.device)
    assert "platform Linux x86_64, CPU Intel Xeon Platinum 8488C" in page.text


def test_many_classes_show_the_dozen_most_concerned(report_of, engines):
    flips = tuple(replace(engines[0].flips[0], reference=f"c{i}", engine=f"c{i + 1}", images=i + 1) for i in range(300))
    html = render_html(report_of(replace(engines[0], flips=flips, changed=())))
    chart = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)[1]
    assert ">c299<" in chart
    assert ">c5<" not in chart
    assert len(set(re.findall(r">(c\d+)<", chart))) == 12


def test_rendering_twice_gives_the_same_bytes(engines, report_of):
    report = report_of(engines[0])
    assert render_html(report) == render_html(report)


def test_write_html_refuses_an_unwritable_place(engines, report_of, tmp_path):
    engine = engine_report(backend="openvino", precision="int8", self_test=engines[0].self_test)
    report = report_of(engine, max_drop_pp=None)
    write_html(report, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == render_html(report)
    with pytest.raises(OutputError, match="Cannot write"):
        write_html(report, tmp_path / "missing" / "report.html")


def test_a_warning_stands_before_the_verdict(engines, report_of):
    warned = replace(engines[0], warning="The reference itself is right on 0.00 %: <b>labels</b> do not fit.")
    text = Page(render_html(report_of(warned))).text
    assert text.index("Warning") < text.index("<b>labels</b> do not fit.") < text.index("Passed", text.index("Warning"))
    assert "Warning" not in Page(render_html(report_of(engines[0]))).text


def test_accuracies_have_their_intervals(report):
    engine = report.engines[0]
    low, high = engine.top1_engine_ci95
    assert low < engine.top1_engine < high
    assert f"{low:.2f} to {high:.2f}" in render_html(report)
    assert "Clopper and Pearson" in render_html(report)
