"""The JSON has the promised fields, follows the schema, and is written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from ran_deploy.errors import OutputError
from ran_deploy.report import ValidationReport, engine_report, report_to_json, write_json
from ran_deploy.verification import LogitErrors


def test_the_promised_fields_are_at_the_top(report):
    content = json.loads(report_to_json(report))
    first = content["engines"][0]
    for name in ("images", "top1_reference", "top1_engine", "drop_pp", "drop_ci95_pp", "agreement", "backend"):
        assert content[name] == first[name]
    assert content["images"] == 2000
    assert content["passed"] is False
    assert 50 < content["top1_engine"] <= 100
    assert content["drop_ci95_pp"][0] < content["drop_pp"] < content["drop_ci95_pp"][1]
    assert [engine["estimate"] for engine in content["engines"]] == [False, False, True]


def test_it_reads_back_as_the_schema_says(report):
    assert msgspec.json.decode(report_to_json(report), type=ValidationReport) == report


def test_what_is_not_finite_is_null_and_reads_back(compared, report_of):
    comparison = replace(compared(0.05), logits=LogitErrors(max_abs=0.0, relative_l2=None, cosine=1.0, sqnr_db=None))
    report = report_of(engine_report(backend="openvino", precision="fp32", comparison=comparison))
    data = report_to_json(report)
    assert json.loads(data, parse_constant=pytest.fail)["engines"][0]["logits"]["sqnr_db"] is None
    assert msgspec.json.decode(data, type=ValidationReport) == report


def test_a_file_is_replaced_and_leaves_no_sibling(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    write_json(report, path)
    assert path.read_bytes() == report_to_json(report)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("where", ["missing/report.json", "folder", "file/report.json"])
def test_an_unwritable_place_is_an_error_that_leaves_nothing(report, tmp_path, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"Cannot write .*report\.json|Cannot write .*folder"):
        write_json(report, Path(tmp_path / where))
    assert sorted(tmp_path.rglob("*")) == before
