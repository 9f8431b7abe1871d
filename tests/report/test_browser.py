"""The page in a real browser: wide and narrow, light and dark, printed; nothing fetched, nothing in the console."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.report import render_html
from ran_deploy.report.schema import BundleComparison, BundleDifference, ClassFlip
from ran_deploy.verification.certificate import certify

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the driver's sockets

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
OVERFLOWING = """
const scrolls = element =>
  element && (getComputedStyle(element).overflowX !== 'visible' || scrolls(element.parentElement));
return [...document.querySelectorAll('main *')]
  .filter(element => element.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter(element => !scrolls(element.parentElement) && !element.closest('svg'))
  .map(element => element.outerHTML.slice(0, 200));
"""
TOUCHING = """
const box = element => element.getBoundingClientRect();
return [...document.querySelectorAll('main > section, .scroll')]
  .filter(element => element.nextElementSibling)
  .filter(element => box(element.nextElementSibling).top - box(element).bottom < 10)
  .map(element => element.nextElementSibling.outerHTML.slice(0, 200));
"""
CHARTS = """
return [...document.querySelectorAll('svg')].map(chart => {
  const box = chart.getBoundingClientRect();
  return [chart.getAttribute('aria-label'), box.width, box.height, chart.querySelectorAll('path, text, use').length];
});
"""
CONTRASTS = """
const channels = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const luminance = text => channels(text).map(c => c / 255)
  .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const page = luminance(getComputedStyle(document.body).backgroundColor);
return ['body', '.lede', '.bad', '.good', 'th', 'svg text'].map(selector => {
  const element = document.querySelector(selector), style = getComputedStyle(element);
  const ink = luminance(element instanceof SVGElement ? style.fill : style.color);
  return [selector, (Math.max(page, ink) + 0.05) / (Math.min(page, ink) + 0.05)];
});
"""


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window. Skips where it, its driver or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    binary, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium and its driver are not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)  # as root, without a display, in a container
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=service.Service(driver))
    yield chromium
    chromium.quit()


@pytest.fixture(scope="module")
def page(detailed, tmp_path_factory) -> Path:
    """A report with everything: long and hostile names, more classes than a chart shows, all charts, pictures."""
    name = "class_with_a_name_that_never_ends_" * 3 + "<b>&"
    flips = tuple(ClassFlip(reference=f"{name}{i}", engine=f"{name}{i + 1}", images=40 - i) for i in range(30))
    engines = (replace(detailed.engines[0], flips=flips), *detailed.engines[1:])
    layers = replace(
        detailed.layers,
        layers=tuple(replace(layer, name=f"backbone.{'block.' * 12}{layer.name}") for layer in detailed.layers.layers),
    )
    certificate = certify(1, 2000, available=5000, seed=1, max_drop_pp=0.5)
    other = BundleDifference(what="outputs", reference=name, bundle="10 classes")
    compared = BundleComparison(bundle=detailed.bundle, precision="fp32", differences=(other,))
    engines = (replace(engines[0], certificate=certificate), *engines[1:])
    report = replace(detailed, engines=engines, layers=layers, compared=compared, kept_in_float={name: name})
    picture = np.full((32, 48, 3), 120, np.uint8)
    html = render_html(report, images={image.index: picture for image in engines[0].changed})
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=str)
def shown(request, browser, page) -> Iterator:
    """The browser with the page in it, at one width and in one colour scheme."""
    width, scheme = request.param
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get_log("performance")  # empties it
    browser.get(page.as_uri())
    return browser


def test_nothing_is_fetched_and_the_console_is_empty(shown, page):
    messages = [json.loads(entry["message"])["message"] for entry in shown.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in sent
    assert [url for url in sent if url != page.as_uri() and not url.startswith("data:")] == []
    assert shown.get_log("browser") == []


def test_nothing_reaches_beyond_the_page(shown):
    width, window = shown.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert shown.execute_script(OVERFLOWING) == []
    assert width <= window


def test_nothing_touches_the_table_or_section_above_it(shown):
    assert shown.execute_script(TOUCHING) == []


def test_every_chart_is_drawn_and_described(shown):
    charts = shown.execute_script(CHARTS)
    assert len(charts) >= 5  # drop, flips, depth, two histograms
    for label, width, height, marks in charts:
        assert label
        assert width > 250
        assert height > 60
        assert marks > 5


def test_text_can_be_read_on_its_background(shown):
    for selector, contrast in shown.execute_script(CONTRASTS):
        assert contrast >= 4.5, selector  # WCAG 2.1, success criterion 1.4.3


def test_pictures_are_drawn_and_described(shown):
    images = shown.execute_script("return [...document.images].map(i => [i.alt, i.complete, i.naturalWidth])")
    assert images
    assert all(alt and complete and width for alt, complete, width in images)


def test_tables_have_headings_and_what_scrolls_can_be_reached_by_keyboard(shown):
    assert shown.execute_script("return [...document.querySelectorAll('table')].every(t => t.querySelector('th'))")
    unreachable = """
      return [...document.querySelectorAll('.scroll')]
        .filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).map(e => e.outerHTML.slice(0, 120));
    """
    assert shown.execute_script(unreachable) == []
    levels = shown.execute_script("return [...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_it_prints_on_pages(browser, page):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get(page.as_uri())
    paper = {"paperWidth": 8.27, "paperHeight": 11.69, "printBackground": False}
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", paper)["data"])
    assert pdf.startswith(b"%PDF-")
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= pages <= 20
