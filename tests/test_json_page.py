"""docs/json.md names every field that a command prints with --json, and none that is not there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ran_deploy.commands.build import outcome
from ran_deploy.converters.builders.engine_layers import EngineLayers
from ran_deploy.converters.builders.trt_dla import DlaLayers
from ran_deploy.engine.padding import Padding
from ran_deploy.runtime.timing import Latency
from ran_deploy.targets import Target
from ran_deploy.verification.golden import BatchCheck, SelfTestResult
from ran_deploy.workflows.bench import BenchResult, BenchRow
from ran_deploy.workflows.doctor import BackendState, DeviceReport, State
from ran_deploy.workflows.engines.padding import PaddingTrial
from ran_deploy.workflows.preflight import BackendVerdict, Verdict
from ran_deploy.workflows.profile import EngineProfile, Layer, ModuleTotal, PartTotal, ProfileResult

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
BUILT = SimpleNamespace(
    folder="", self_test=None, layers=None, engine_bytes=1, half_pixel=False, graph_bytes=1, dla=(),
    padding=SimpleNamespace(padding=(), trials=()),
)  # fmt: skip
FIELDS_OF = {
    "ran-build": (SelfTestResult, BatchCheck, EngineLayers, DlaLayers, Padding, PaddingTrial),
    "ran-bench": (BenchResult, BenchRow, Latency, ProfileResult, EngineProfile, PartTotal, ModuleTotal, Layer),
    "ran-doctor": (DeviceReport, BackendState, Target, BackendVerdict),
}
OTHERS = {
    "ran-build": {*outcome("", BUILT, Path()), "trtexec"},
    "ran-bench": set(),
    "ran-doctor": {"target", "bundle", "backends"},
}
WORDS = {"ran-doctor": {each.value for each in (*State, *Verdict)}}


def named(command: str) -> set[str]:
    """Return what stands in backticks in the tables of a command's section, other than options and links."""
    (section,) = re.findall(rf"^## {command}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if line.startswith("|")]
    words = set(re.findall(r"`([^`]+)`", "\n".join(rows)))
    return {word for word in words if not word.startswith(("--", "ran-", "[")) and word != "null"}


@pytest.mark.parametrize("command", FIELDS_OF)
def test_the_page_names_the_fields_of_what_is_printed(command):
    fields = {field.name for each in FIELDS_OF[command] for field in dataclasses.fields(each)}
    assert named(command) == fields | OTHERS[command] | WORDS.get(command, set())


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


def printed(script, demo, command: str, *arguments: object) -> str:
    done = script(command, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_images_and_networks_have_the_fields_of_the_page(script, demo):
    image = demo.images / "bag.png"
    (line,) = printed(script, demo, "ran-infer", demo.bundle, image, "--cache-dir", demo.cache).splitlines()
    assert keys(json.loads(line)) == named("ran-infer") - {"embedding"}
    networks = json.loads(printed(script, demo, "ran-export", "--list"))
    assert {key for network in networks for key in network} == named("ran-export")
