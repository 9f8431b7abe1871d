"""README and docs/: every link leads somewhere, and what docs/python.md shows runs."""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Return the headings of a page as GitHub names them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page):
    for file, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        target = (page.parent / file) if file else page
        assert target.exists(), f"{page.name}: {file}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {file}#{anchor}"


def test_every_page_is_reached_from_the_readme():
    linked = {file for file, _ in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {f"docs/{page.name}" for page in PAGES} - {"docs/README.md"} <= linked


@pytest.mark.parametrize("command", ["export", "build", "infer", "validate", "bench", "doctor"])
def test_every_option_of_a_command_is_described(command):
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    of_all, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    own = next(section for section in sections if section.startswith(f"ran-{command} "))
    described = set(re.findall(r"--[a-z][a-z-]+", of_all + own))
    parameters = getattr(importlib.import_module(f"ran_deploy.commands.{command}"), command).params
    options = {name for each in parameters if isinstance(each, click.Option) for name in each.opts if name[:2] == "--"}
    assert options - described == set()


def test_the_python_page_runs(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("compact.safetensors", "calibration.npz", "test.npz"):
        (tmp_path / name).symlink_to(ROOT / "examples" / "fashion_mnist" / name)
    shutil.copytree(demo.bundle, tmp_path / "fashion.ran")
    shown: dict[str, object] = {}
    for code in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL
    ):
        exec(code, shown)
    assert shown["logits"].shape[0] == 24
    assert "is within the budget of 5" in capsys.readouterr().out

    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for level in range(11):
        writer.write(np.full((48, 64, 3), 20 * level, np.uint8))
    writer.release()
    assert len(list(shown["classify"]("clip.avi"))) == 11
