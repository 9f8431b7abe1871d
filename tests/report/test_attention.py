"""The report's section on attention: figures in JSON, and masks side by side on the page."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from ran_deploy.manifest import AttentionRecord
from ran_deploy.overlays import overlay
from ran_deploy.report import ValidationReport, engine_report, render_html, report_to_json
from ran_deploy.report import attention as report_attention
from ran_deploy.report.attention import ShownAttention
from ran_deploy.verification.attention import AttentionComparison, compare_attention, rows_from_masks

HOSTILE = "<script>alert('x')</script>"
NAMES = ("stage1.module1", HOSTILE)


def records_of(names) -> tuple[AttentionRecord, ...]:
    return tuple(AttentionRecord(name=name, module=name, height=4, width=6) for name in names)


def attention_of(names=NAMES, *, flat: bool = False, images: int = 9) -> AttentionComparison:
    rng = np.random.default_rng(3)
    reference = {name: rng.uniform(0.3, 0.6, (images, 4, 6)) for name in names}
    if flat:
        reference[names[0]][2] = 0.5
    engine = {name: masks + rng.normal(0, 0.02 * i, masks.shape) for i, (name, masks) in enumerate(reference.items())}
    records = records_of(names)
    rows = [rows_from_masks(masks, records) for masks in (reference, engine)]
    batches = [(np.arange(images)[:, None], None)]
    return compare_attention(lambda x: rows[0][x[:, 0]], lambda x: rows[1][x[:, 0]], batches, records)


def shown_of(attention: AttentionComparison) -> tuple[ShownAttention, ...]:
    rng = np.random.default_rng(4)
    return tuple(
        ShownAttention(
            index=index,
            image=rng.integers(0, 256, (32, 48, 3), dtype=np.uint8),
            reference=masks.reference,
            engine=masks.engine,
        )
        for index, masks in attention.masks.items()
    )


def report_with(report_of, compared, attention: AttentionComparison) -> ValidationReport:
    files = {index: f"{HOSTILE}{index}.png" for index in range(20)}
    common = {"precision": "int8", "comparison": compared(0.05), "files": files}
    first = engine_report(backend="openvino", attention=attention, **common)
    return report_of(first, engine_report(backend="onnxruntime", **common), max_drop_pp=None)


@pytest.fixture
def attention() -> AttentionComparison:
    return attention_of()


@pytest.fixture
def report(report_of, compared, attention) -> ValidationReport:
    return report_with(report_of, compared, attention)


def test_json_has_every_module_and_the_worst_images(report, attention):
    engines = json.loads(report_to_json(report))["engines"]
    figures = engines[0]["attention"]
    assert engines[1]["attention"] is None
    assert figures["images"] == 9
    assert [module["name"] for module in figures["modules"]] == list(NAMES)
    second = attention.modules[1]
    assert figures["modules"][1] == {
        "name": HOSTILE,
        "height": 4,
        "width": 6,
        "correlation_mean": second.correlation_mean,
        "correlation_worst": second.correlation_worst,
        "flat": 0,
        "relative_l2": second.relative_l2,
        "moved_mean": second.moved_mean,
        "moved_worst": second.moved_worst,
    }
    assert [image["index"] for image in figures["moved"]] == [image.index for image in attention.moved]
    assert figures["moved"][0]["file"] == f"{HOSTILE}{attention.moved[0].index}.png"
    assert figures["moved"][0]["correlations"][HOSTILE] == second.correlation_worst


def test_the_page_has_the_figures_and_both_masks_of_each_module(report, attention):
    html = render_html(report, attention={"openvino": shown_of(attention)})
    assert "Where the attention of openvino moved most" in html
    assert "Where the attention of onnxruntime" not in html
    assert f"<td>{attention.modules[1].correlation_worst:.4f}</td>" in html
    assert HOSTILE not in html
    assert html.count('alt="Mask of stage1.module1, FP32"') == html.count('alt="Mask of stage1.module1, engine"') == 4


def test_both_masks_of_a_module_are_drawn_on_one_scale(report, attention):
    (shown, *_) = shown_of(attention)
    html = render_html(report, attention={"openvino": [shown]})
    uris = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="Mask of stage1.module1, (FP32|engine)"', html)
    both = [shown.reference["stage1.module1"], shown.engine["stage1.module1"]]
    low, high = min(mask.min() for mask in both), max(mask.max() for mask in both)
    large = shown.image.repeat(2, axis=0).repeat(2, axis=1)  # 48 pixels to at least 96
    for (uri, _), mask in zip(uris, both, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(uri))) as picture:
            np.testing.assert_array_equal(np.asarray(picture), overlay(large, mask, low, high))


def test_flat_masks_are_said_to_be_left_out(report_of, compared):
    html = render_html(report_with(report_of, compared, attention_of(flat=True)))
    assert "1 of stage1.module1" in re.sub(r"\s+", " ", html)
    assert "left out of the correlations" not in render_html(report_with(report_of, compared, attention_of()))


def test_of_many_modules_those_that_correlate_least_are_drawn(report_of, compared):
    names = tuple(f"stage1.module{i}" for i in range(1, 10))
    attention = attention_of(names)
    html = render_html(report_with(report_of, compared, attention), attention={"openvino": shown_of(attention)})
    shown = set(re.findall(r'alt="Mask of ([^,]*), FP32"', html))
    assert "stage1.module1" not in shown  # the noise grows from none
    assert "stage1.module9" in shown
    assert "3 more modules correlate better" in html


def test_without_pictures_or_opencv_the_figures_stay(report, attention, monkeypatch):
    def unavailable(*_):
        raise report_attention.BackendUnavailableError("no cv2")

    without = render_html(report)
    monkeypatch.setattr(report_attention, "overlay", unavailable)
    for html in (without, render_html(report, attention={"openvino": shown_of(attention)})):
        assert "<h2>Attention</h2>" in html
        assert "moved most" not in html


def test_a_report_without_attention_has_no_such_section(report_of, compared):
    engine = engine_report(backend="openvino", precision="int8", comparison=compared(0.05))
    assert "Attention</h2>" not in render_html(report_of(engine, max_drop_pp=None))
