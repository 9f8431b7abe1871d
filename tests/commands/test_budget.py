"""ran-export --max-drop as a user runs it: what is kept, what is said, and what ran-validate makes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.errors import ConfigError
from ran_deploy.precision import Precision
from ran_deploy.workflows.export import ExportConfig

safetensors = pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def hard_checkpoint(demo, tmp_path_factory):
    """The demo checkpoint whose stage3.entry needs float: weights that cancel, read from two equal channels."""
    from safetensors.numpy import load_file, save_file

    unit, path = "stages.2.0", tmp_path_factory.mktemp("hard") / "hard.safetensors"
    weights = load_file(demo.checkpoint)
    for name in ("conv2.weight", "bn3.weight", "bn3.bias", "bn3.running_mean", "bn3.running_var"):
        weights[f"{unit}.{name}"][1] = weights[f"{unit}.{name}"][0]
    last = weights[f"{unit}.conv3.weight"]
    signs = np.where(np.arange(len(last)) % 2, 1, -1).reshape(-1, 1, 1)
    last[:, 0] += np.float32(2000) * signs
    last[:, 1] -= np.float32(2000) * signs
    with safetensors.safe_open(demo.checkpoint, "numpy") as file:
        save_file(weights, path, file.metadata())
    return path


def test_a_hard_network_is_exported_within_its_budget_and_its_images_cannot_judge_it(
    script, demo, hard_checkpoint, tmp_path
):
    bundle = tmp_path / "hard.ran"
    options = (
        "--backend",
        "onnxruntime",
        "--calibration",
        "minmax",
        "--calibration-images",
        32,
        "--cache-dir",
        tmp_path,
    )
    data = ("--calibration-data", demo.calibration, "--validation-data", demo.test)
    done = script("ran-export", hard_checkpoint, *data, "--max-drop", 3, *options, "-o", bundle)
    assert done.returncode == 0, done.stderr
    assert "kept in float: 1 of 29 regions, 8.1 % of multiply-adds" in done.stdout
    assert "stage3.entry (8.1 % of multiply-adds)" in done.stdout
    assert "all INT8, onnxruntime: drop +" in done.stdout
    manifest = open_bundle(bundle).manifest
    assert list(manifest.kept_in_float) == ["stage3.entry"]
    assert manifest.budget is not None
    assert manifest.budget.method_errors.keys() == {"minmax"}
    judged = script("ran-validate", bundle, "--data", demo.test, "--cache-dir", tmp_path)
    assert judged.returncode == 2
    assert "512 of 512 images of test.npz were used for deciding what stays in float" in judged.stderr


def test_too_few_images_end_the_export_with_one_line_and_no_bundle(script, demo, tmp_path):
    options = ("--calibration-data", demo.calibration, "--validation-data", demo.test, "--max-drop", 0.25)
    done = script("ran-export", demo.checkpoint, *options, "--json", "-o", tmp_path / "x.ran")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.splitlines()[-1].startswith(
        "ran-export: 512 validation images cannot prove a drop of at most 0.25"
    )
    assert "about 2,100 images could" in done.stderr or "about 2,000 images could" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop_pp": 1.0}, "give both, or neither"),
        ({"validation_data": "val"}, "give both, or neither"),
        ({"max_drop_pp": -1.0, "validation_data": "val"}, r"--max-drop is -1\.0; expected percentage points"),
        ({"max_drop_pp": 1.0, "validation_data": "val", "precision": Precision.FP16}, "--precision is fp16"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        ExportConfig(checkpoint=tmp_path / "x.pth", output=tmp_path / "x.ran", calibration_data=tmp_path, **options)


def test_a_bundle_without_a_budget_has_nothing_kept(demo):
    assert demo.manifest["budget"] is None
    assert json.loads((demo.bundle / "manifest.json").read_text())["kept_in_float"] == {}
