"""Attention from export to pictures, with the real commands."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import ran_deploy
from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.workflows.engines.golden import read_golden

MODULES = ["stage1.module1", "stage2.module1", "stage3.module1"]


def test_the_manifest_lists_the_modules_in_order(attentive):
    records = open_bundle(attentive.bundle).manifest.attention
    assert [(r.name, r.module, r.height, r.width) for r in records] == [
        ("stage1.module1", "stages.0.1", 16, 16),
        ("stage2.module1", "stages.1.1", 8, 8),
        ("stage3.module1", "stages.2.1", 4, 4),
    ]


def test_a_network_without_attention_modules_is_refused(call, tiny, tmp_path):
    options = [*tiny.options, "--precision", "fp32", "--backend", "onnxruntime", "--with-attention"]
    outcome = call("ran-export", tiny.checkpoint, "-o", tmp_path / "tiny.ran", *options)
    outcome.assert_refused("no soft mask", "Leave --with-attention out")
    assert not (tmp_path / "tiny.ran").exists()


def test_python_gives_masks_between_0_and_1_beside_the_same_logits(attentive, rng):
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    with ran_deploy.load(attentive.bundle, cache_dir=attentive.cache) as predictor:
        masks, logits = predictor.attention(images), predictor.logits(images)
        assert list(masks) == MODULES
        assert [mask.shape for mask in masks.values()] == [(3, 16, 16), (3, 8, 8), (3, 4, 4)]
        for mask in masks.values():
            assert 0 < mask.min() < mask.max() < 1
        np.testing.assert_array_equal(predictor.infer_outputs(np.stack(images)).logits, logits)


@pytest.fixture
def folder(demo, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(demo.images / "trouser.png", folder / "1.png")
    (folder / "2.png").write_text("this is no image")
    shutil.copy(demo.images / "sandal.png", folder / "3.png")
    return folder


def test_each_image_that_can_be_read_gets_a_picture_beside_its_result(call, attentive, folder, tmp_path):
    options = ["--cache-dir", attentive.cache, "--attention", tmp_path / "out"]
    outcome = call("ran-infer", attentive.bundle, folder, *options, "--output", tmp_path / "x.jsonl", "--batch", 2)
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert outcome.status == 1
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert [row["predictions"][0]["label"] for row in rows[::2]] == ["Trouser", "Sandal"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000001-1.png", "000003-3.png"]
    assert f"3 images, 1 failed (onnxruntime), results in {tmp_path / 'x.jsonl'}, pictures in" in outcome.err
    with Image.open(tmp_path / "out" / "000003-3.png") as picture:
        assert picture.size[0] > 4 * 160


def test_a_bundle_without_attention_is_refused_before_anything_is_written(call, demo, folder, tmp_path):
    options = ["--cache-dir", demo.cache, "--attention", tmp_path / "out"]
    call("ran-infer", demo.bundle, folder, *options).assert_refused("no attention", "--with-attention")
    assert not (tmp_path / "out").exists()
    with ran_deploy.load(demo.bundle, cache_dir=demo.cache) as predictor, pytest.raises(ran_deploy.errors.ConfigError):
        predictor.attention([])


def test_a_folder_that_cannot_be_written_is_refused(call, attentive, folder):
    options = ["--cache-dir", attentive.cache, "--attention", folder / "1.png" / "below"]
    call("ran-infer", attentive.bundle, folder, *options).assert_refused("Cannot make the folder")


@pytest.fixture(scope="module")
def few(demo, tmp_path_factory):
    """The first 40 test images, as a data set of their own."""
    with np.load(demo.test) as content:
        path = tmp_path_factory.mktemp("few") / "few.npz"
        np.savez(path, images=content["images"][:40], labels=content["labels"][:40])
    return path


@pytest.fixture(scope="module")
def masks(attentive, few) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The masks of the 40 images: the FP32 graph's by ONNX Runtime itself, the engine's by the Python interface."""
    ort = pytest.importorskip("onnxruntime")
    bundle = open_bundle(attentive.bundle)
    with np.load(few) as content, ran_deploy.load(attentive.bundle, cache_dir=attentive.cache) as predictor:
        images = [np.repeat(image[:, :, None], 3, axis=2) for image in content["images"]]
        prepared = np.stack([predictor.prepare(image) for image in images])
        engine = predictor.attention(images)
    session = ort.InferenceSession(bundle.read("reference.onnx"), providers=["CPUExecutionProvider"])
    reference = session.run([f"attention/{name}" for name in MODULES], {"image": prepared})
    return dict(zip(MODULES, reference, strict=True)), engine


@pytest.mark.parametrize("reference", [False, True])
def test_validation_tells_how_far_each_modules_masks_moved(reference, call, demo, attentive, few, masks):
    options = ["--reference", demo.checkpoint] if reference else []
    options += ["--data", few, "--cache-dir", attentive.cache, "--json"]
    outcome = call("ran-validate", attentive.bundle, *options)
    figures = json.loads(outcome.out)["engines"][0]["attention"]
    assert figures["images"] == 40
    for module in figures["modules"]:
        before, after = (found[module["name"]].reshape(40, -1).astype(float) for found in masks)
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(before, after, strict=True)]
        assert module["correlation_mean"] == pytest.approx(np.mean(correlations), abs=1e-4)
        assert module["correlation_worst"] == pytest.approx(np.min(correlations), abs=1e-3)
        assert module["relative_l2"] == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before), rel=1e-2)
        assert 0.9 < module["correlation_mean"] < 1


def test_the_table_and_the_page_show_the_attention(call, attentive, few, tmp_path):
    options = ["--data", few, "--cache-dir", attentive.cache, "--report", tmp_path / "x.html", "--no-details"]
    outcome = call("ran-validate", attentive.bundle, *options)
    lines = outcome.out.splitlines()
    start = lines.index("  attention of 40 images, against the FP32 graph's")
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == MODULES
    assert "correlation 0.9" in lines[start + 1]
    assert (tmp_path / "x.html").read_text().count('alt="Mask of stage2.module1, FP32"') == 4


def test_masks_are_compared_on_some_of_many_images(call, attentive, few, monkeypatch):
    monkeypatch.setattr("ran_deploy.workflows.validation.attention.ATTENTION_IMAGES", 7)
    options = ["--data", few, "--cache-dir", attentive.cache, "--json"]
    report = json.loads(call("ran-validate", attentive.bundle, *options).out)
    assert report["images"] == 40
    assert report["engines"][0]["attention"]["images"] == 7


def test_an_engine_with_other_masks_than_recorded_is_refused(call, attentive, tmp_path):
    bundle = open_bundle(attentive.bundle)
    golden = read_golden(bundle)
    rows = golden.attention["onnxruntime"].copy()
    rows[:, 16 * 16 : 16 * 16 + 8 * 8] *= 1.3  # the second module's
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["golden.npz"] = replace(golden, attention={"onnxruntime": rows}).to_bytes()
    write_bundle(tmp_path / "wrong.ran", bundle.manifest, files)
    outcome = call("ran-validate", tmp_path / "wrong.ran", "--cache-dir", tmp_path / "cache")
    outcome.assert_refused("failed the golden self-test", "the attention of stage2.module1", status=1)
    outcome = call("ran-validate", attentive.bundle, "--cache-dir", tmp_path / "cache")
    assert outcome.status == 0
    assert "of attention at most 0.0" in outcome.out
