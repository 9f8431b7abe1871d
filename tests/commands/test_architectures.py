"""ran-export --list and --architecture."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch

from ran_deploy.bundle import open_bundle
from ran_deploy.models.design import Design
from ran_deploy.models.network import build_network
from ran_deploy.models.zoo import ARCHITECTURES

NAIVE = "cifar-attention-56-naive"


def test_the_list_has_a_line_for_each_network(call):
    outcome = call("ran-export", "--list")
    assert (outcome.status, outcome.err) == (0, "")
    header, *lines = outcome.out.splitlines()
    assert [line.split()[0] for line in lines] == list(ARCHITECTURES)
    for column in ("parameters", "multiply-adds", "depth", "input", "smallest", "source"):
        assert column in header
    published = next(line for line in lines if line.startswith("attention-56 "))
    assert published.split()[1:8] == ["31.81", "M", "6.27", "G", "56", "224x224", "31"]


def test_the_list_as_json_has_the_published_numbers_and_designs(call):
    networks = {network["name"]: network for network in json.loads(call("ran-export", "--list", "--json").out)}
    assert list(networks) == list(ARCHITECTURES)
    first = networks["attention-56"]
    assert (first["parameters"], first["multiply_adds"], first["trunk_depth"]) == (31810728, 6270836736, 56)
    assert (first["input_size"], first["smallest_side"], first["num_classes"]) == ([224, 224], 31, 1000)
    for name, network in networks.items():
        assert msgspec.convert(network["design"], Design) == ARCHITECTURES[name].design


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "attention-92",
            ["width 1024, stride 2, 3 attention modules, mask depth 1", "pre-activation; p = 1, t = 2, r"],
        ),
        ("cifar-attention-452", ["6 attention modules, mask depth 3, 1 closing unit", "p = 2, t = 4, r = 3"]),
        (NAIVE, ["learning    naive, M T"]),
        ("cifar-attention-56-spatial", ["spatial attention", "residual, (1 + M) T"]),
        ("cifar-attention-56-local", ["masks without pools", "3 units"]),
    ],
)
def test_one_network_is_shown_in_detail(call, name, words):
    outcome = call("ran-export", "--architecture", name, "--list")
    assert outcome.status == 0
    assert outcome.out.startswith(f"network     {name}: ")
    for word in words:
        assert word in outcome.out
    shown = json.loads(call("ran-export", "--list", "--json", "--architecture", name).out)
    assert shown["name"] == name


def test_an_unknown_network_is_one_line_with_the_nearest_names(call, tmp_path):
    (tmp_path / "net.pth").touch()
    for arguments in (["--list"], [tmp_path / "net.pth", "-o", tmp_path / "x.ran", "--precision", "fp32"]):
        outcome = call("ran-export", *arguments, "--architecture", "atention-92")
        outcome.assert_refused("no architecture 'atention-92'", "did you mean attention-92", "--list")


def test_the_list_reads_no_checkpoint_and_an_export_needs_one(call, tmp_path):
    call("ran-export", "--list", tmp_path / "net.pth").assert_refused("--list", "net.pth")
    call("ran-export").assert_refused("Missing argument 'CHECKPOINT'")
    call("ran-export", tmp_path / "net.pth").assert_refused("Missing option '-o' / '--output'")


def test_the_list_needs_no_torch():
    program = (
        "import contextlib, io, sys\nfrom ran_deploy.commands.export import export\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n    export.main(['--list'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def nameless(tmp_path_factory):
    """A naive network, saved by code that dropped the design."""
    torch.manual_seed(5)
    module = build_network(ARCHITECTURES[NAIVE].design, 4)
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(8, 3, 32, 32))
    path = tmp_path_factory.mktemp("nameless") / "net.pth"
    torch.save({key: value for key, value in module.state_dict().items() if key != "_extra_state"}, path)
    return path


def test_a_checkpoint_is_exported_and_validated_as_the_network_it_is_named(call, nameless, tmp_path, rng):
    options = ["--precision", "fp32", "--backend", "onnxruntime", "-o", tmp_path / "net.ran"]
    outcome = call("ran-export", nameless, "--architecture", NAIVE, *options)
    assert outcome.status == 0, outcome.err
    assert f"checkpoint: {NAIVE}, " in outcome.out
    assert open_bundle(tmp_path / "net.ran").manifest.architecture == NAIVE
    images, labels = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), np.arange(12) % 4
    np.savez(tmp_path / "val.npz", images=images, labels=labels)
    distances = {}
    for named in ((), ("--architecture", NAIVE), ("--architecture", "cifar-attention-56")):
        arguments = [tmp_path / "net.ran", "--data", tmp_path / "val.npz", "--reference", nameless, *named, "--json"]
        report = json.loads(call("ran-validate", *arguments, "--backend", "onnxruntime").out)
        distances[named[1:]] = report["engines"][0]["logits"]["relative_l2"]
    assert distances[()] == distances[(NAIVE,)] < 1e-4 < distances[("cifar-attention-56",)]


def test_a_checkpoint_that_is_not_the_named_network_is_refused(call, nameless, tmp_path):
    outcome = call(
        "ran-export", nameless, "--architecture", "compact-attention", "--precision", "fp32", "-o", tmp_path / "x.ran"
    )
    outcome.assert_refused("reads as cifar-attention-56", "compact-attention", "stem conv3 instead of conv5-stride2")
    assert not (tmp_path / "x.ran").exists()
