from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.manifest import BatchProfile
from ran_deploy.workflows.validation.bundle_differences import bundle_differences


@pytest.fixture(scope="module")
def manifest(demo):
    return open_bundle(demo.bundle).manifest


def found(before, after) -> dict[str, tuple[str, str]]:
    pair = (SimpleNamespace(manifest=before), SimpleNamespace(manifest=after))
    return {d.what: (d.reference, d.bundle) for d in bundle_differences(*pair)}


def test_the_same_bundle_does_not_differ(manifest):
    assert found(manifest, manifest) == {}


def test_each_aspect_is_told_alone(manifest):
    tools = {name: version for name, version in manifest.tools.items() if name != "onnx"} | {"new": "1.0"}
    changes = {
        "checkpoint": {"checkpoint": replace(manifest.checkpoint, sha256="ab" * 32)},
        "kept in float": {"kept_in_float": {f"region{i}": "costly" for i in range(7)}},
        "pre-processing": {"preprocessing": replace(manifest.preprocessing, mean=(0.1, 0.1, 0.1))},
        "batch sizes": {"batch": BatchProfile(maximum=4, optimum=4)},
        "outputs": {"labels": None},
    }
    for what, change in changes.items():
        assert list(found(manifest, replace(manifest, **change))) == [what]
    assert found(manifest, replace(manifest, tools=tools)) == {
        "new": ("none", "1.0"),
        "onnx": (manifest.tools["onnx"], "none"),
    }
    kept = found(manifest, replace(manifest, **changes["kept in float"]))["kept in float"]
    assert kept == ("nothing", "region0, region1, region2, region3, region4 and 2 more")


def test_other_calibration_images_under_the_same_name_differ(manifest):
    images = ("00" * 32, *manifest.calibration.image_sha256[1:])
    after = replace(manifest, calibration=replace(manifest.calibration, image_sha256=images))
    (before, after) = found(manifest, after)["calibration"]
    assert before.split(" (digest")[0] == after.split(" (digest")[0]
    assert before.split(" (digest")[0].endswith(" on 512 images of calibration.npz")
    assert before != after
