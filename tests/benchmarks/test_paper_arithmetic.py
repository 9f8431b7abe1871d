from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "tests" / "oracle"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("paper_arithmetic", ROOT / "benchmarks" / "paper_arithmetic.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


# What does not simply agree; every other number of the paper must.
EXCEPTIONS = {
    ("table 2", "Attention-56: parameters"): "WITH_STATISTICS",
    ("table 7", "Attention-56: parameters"): "WITH_STATISTICS",
    ("table 6", "CIFAR-Attention-92: parameters"): "WITH_STATISTICS",
    ("table 2", "Attention-56: multiply-adds"): "AUTHORS",
    ("table 2", "Attention-92: parameters"): "AUTHORS",
    ("table 2", "Attention-92: multiply-adds"): "AUTHORS",
    ("table 7", "Attention-92: parameters"): "AUTHORS",
    ("table 7", "Attention-92: multiply-adds"): "AUTHORS",
    ("table 7", "AttentionNeXt-56: parameters"): "AUTHORS",
    ("table 7", "AttentionNeXt-56: multiply-adds"): "AUTHORS",
    ("abstract", "Attention-92: multiply-adds of ResNet-200"): "AUTHORS",
    ("section 4.2", "Attention-56: parameters of ResNet-152"): "PAPER",
    ("section 4.2", "ResNet-200: parameters of Attention-92"): "PAPER",
    ("table 7", "AttentionInception-56: parameters"): "UNSTATED",
    ("table 7", "AttentionInception-56: multiply-adds"): "UNSTATED",
    ("table 6", "CIFAR-Attention-452: parameters"): "UNSTATED",
}


def test_every_number_of_the_paper_agrees_or_cannot_for_a_known_reason(script):
    verdicts = {(row.where, row.what): row.verdict.name for row in script.rows()}
    assert len(verdicts) == len(script.rows()) > 30
    assert {key: verdict for key, verdict in verdicts.items() if verdict != "AGREES"} == EXCEPTIONS


def test_the_authors_counts_are_those_of_their_files(script):
    for path in ORACLE.glob("authors__*.json"):
        facts = json.loads(path.read_text())
        counts = script.PAPER["authors"][facts["arch"]]
        assert counts["parameters"] == facts["num_parameters"]
        assert counts["multiply_adds"] == facts.get("macs", counts["multiply_adds"])


def test_resnets_are_counted_as_published(script):
    """Parameters as torchvision publishes them for resnet50 and resnet152, 3.8e9 as in arXiv:1512.03385, table 1."""
    small = script.resnet((3, 4, 6, 3), strides_first=True)
    assert small.parameters == 25_557_032
    assert f"{small.multiply_adds / 1e9:.2f}" == "3.86"
    assert script.resnet((3, 8, 36, 3), strides_first=True).parameters == 60_192_808


@pytest.mark.parametrize(
    ("table", "name", "quantity", "number"),
    [
        ("table 2", "Attention-56", "trunk_depth", "57"),
        ("table 7", "ResNet-200", "multiply_adds", "30.6"),
        ("table 6", "CIFAR-Attention-236", "parameters", "5.2"),
    ],
)
def test_a_number_that_nothing_explains_fails(script, capsys, monkeypatch, table, name, quantity, number):
    paper = copy.deepcopy(script.PAPER)
    paper["tables"][table][name][quantity] = number
    paper["unstated"] = {}
    monkeypatch.setattr(script, "PAPER", paper)
    verdict = next(row.verdict for row in script.rows() if row.where == table and row.what.startswith(f"{name}: "))
    assert script.main() == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert verdict is not script.Verdict.UNSTATED


def test_the_table_in_the_documentation_is_what_the_script_prints(script, capsys):
    assert script.main() == 0
    assert capsys.readouterr().out in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
