"""What a report needs is known before the work it reports on."""

from __future__ import annotations

import sys

import pytest

from ran_deploy.errors import BackendUnavailableError, ConfigError, OutputError
from ran_deploy.report.writing import check_report_path, write_report


@pytest.mark.parametrize("name", ["r.html", "r.JSON"])
def test_a_path_that_passes_can_be_written(report, name, tmp_path):
    check_report_path(tmp_path / name)
    write_report(report, tmp_path / name, {})
    assert (tmp_path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("r.pdf", ConfigError, r"found \.pdf; expected \.html or \.json"),
        ("report", ConfigError, "found no suffix"),
        ("nowhere/r.json", OutputError, "No such file or directory"),
        ("folder.json", OutputError, "it is a folder"),
        ("a.ran/report.html", OutputError, r"inside the bundle .*a\.ran, which never changes"),
        ("a.ran/engines/x/report.html", OutputError, r"inside the bundle .*a\.ran, which never changes"),
        ("x" * 250 + ".json", OutputError, "File name too long"),
        ("x" * 300 + ".json", OutputError, "File name too long"),
    ],
)
def test_any_other_path_is_refused(name, error, words, tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "a.ran").mkdir()
    for part in ("manifest.json", "manifest.sha256"):
        (tmp_path / "a.ran" / part).touch()
    with pytest.raises(error, match=words):
        check_report_path(tmp_path / name)


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_page_is_refused_where_its_packages_are_missing(package, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    check_report_path(tmp_path / "r.json")
    with pytest.raises(
        BackendUnavailableError, match=rf"Cannot import {package} .* pip install 'ran-deploy\[report\]'"
    ):
        check_report_path(tmp_path / "r.html")
