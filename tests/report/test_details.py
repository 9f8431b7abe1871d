"""The page shows layers, what stayed in float, calibration, speed and size, and leaves out what is not known."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ran_deploy.report import render_html
from ran_deploy.report.layer_charts import depth_chart, magnitude_chart

HEADINGS = ("Layers", "What stayed in float", "Calibration", "Speed and size")


@pytest.fixture(scope="module")
def text(detailed) -> str:
    return plain(render_html(detailed))


def plain(html: str) -> str:
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html, flags=re.DOTALL).replace("<wbr>", "")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_sections_are_there_with_their_figures_and_not_without(text, detailed, report):
    full, bare = render_html(detailed), render_html(report)
    for heading in HEADINGS:
        assert f"<h2>{heading}</h2>" in full
        assert f"<h2>{heading}</h2>" not in bare
    assert "The machine was busy" in text
    assert "openvino 1 4.20 8.00 0.52 30" in text
    assert "openvino 1.8 MiB 1.4 MiB \N{EN DASH}" in text
    assert "256 to 512 1.0 % 20.0 % relu_3" in text
    assert "Tensors took the range of minmax (70), mse (13)" in text
    assert "stages.0.1.mask its INT8 error moved the outputs most" in text
    assert "The first 20 of 25" in text


def test_the_worst_layers_stand_in_the_table_with_what_is_cut_off(text, detailed):
    worst = detailed.layers.layers[detailed.layers.worst[0]]
    assert f"{worst.name} {worst.branch} {worst.relative_l2:.4f} {worst.sqnr_db:.1f}" in text
    assert "The 10 layers furthest from FP32, of 83" in text
    assert "&lt; 0.001 %" in text  # 3e-6 of the values: not none


def test_why_there_are_no_layers_is_said(report):
    text = plain(render_html(replace(report, layers_missing="It needs onnx <and> more.")))
    assert "Layers Left out. It needs onnx &lt;and&gt; more." in text


def test_a_quiet_machine_is_not_called_busy(detailed):
    quiet = replace(detailed, speeds=tuple(replace(speed, noisy=False) for speed in detailed.speeds))
    assert "busy" not in plain(render_html(quiet))


def test_every_layer_is_a_point_of_its_branch_in_the_depth_chart(detailed):
    chart = depth_chart(detailed.layers)
    branches = [layer.branch for layer in detailed.layers.layers]
    points = re.findall(r'<use x[^>]*href="#(\w+)"[^>]*y="[\d.]+"', chart)
    counts = sorted(points.count(marker) for marker in set(points))
    assert counts == sorted({branches.count("mask") + 1, branches.count("trunk") + 1})  # one each in the legend
    assert "var(--accent)" in chart
    assert "currentColor" in chart


def test_a_network_without_masks_or_errors_still_has_a_page(detailed):
    layers = [replace(layer, branch="trunk", sqnr_db=None, relative_l2=0.0) for layer in detailed.layers.layers]
    equal = replace(detailed.layers, layers=tuple(layers), worst=(), histograms=())
    assert depth_chart(equal) is None
    assert "Every layer is equal to FP32." in plain(render_html(replace(detailed, layers=equal)))


def test_what_is_cut_off_has_another_colour_and_a_description_names_the_layer(detailed):
    cut, whole = detailed.layers.histograms
    assert magnitude_chart(cut).count("fill: var(--bad)") > magnitude_chart(whole).count("fill: var(--bad)")
    hostile = replace(cut, layer='"><script>')
    assert "<script>" not in magnitude_chart(hostile)
    assert "&quot;&gt;&lt;script&gt;" in magnitude_chart(hostile)
