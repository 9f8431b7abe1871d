"""Bundles in Python: what `ran_deploy.load` gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ran_deploy
from ran_deploy.bundle import open_bundle, sha256_of
from ran_deploy.errors import BackendUnavailableError, RanDeployError
from ran_deploy.precision import Precision
from ran_deploy.workflows.export import ExportConfig, export_bundle


def snapshot(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: (sha256_of(path.read_bytes()), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def predictor(demo):
    with ran_deploy.load(demo.bundle, cache_dir=demo.cache) as loaded:
        yield loaded


def test_a_list_of_images_of_one_size_and_their_array_give_the_same_logits(predictor, rng):
    images = rng.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    logits = predictor.logits(images)
    assert logits.shape == (7, 10)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(predictor.logits(list(images)), logits)


def test_images_of_different_sizes_each_give_what_they_give_alone(predictor, rng):
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 32), (28, 30), (32, 90))]
    together = predictor.logits(images)
    alone = np.concatenate([predictor.logits([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-3 * np.abs(alone).max())
    assert [best[0].index for best in predictor.predict(images)] == alone.argmax(axis=1).tolist()


def test_several_threads_get_what_one_gets(predictor, rng):
    batches = rng.integers(0, 256, (12, 3, 32, 32, 3), dtype=np.uint8)
    expected = [predictor.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for logits, wanted in zip(pool.map(predictor.logits, batches), expected, strict=True):
            np.testing.assert_allclose(logits, wanted, atol=1e-3 * np.abs(wanted).max())


def test_a_closed_predictor_says_so(demo, rng):
    with ran_deploy.load(demo.bundle, cache_dir=demo.cache) as predictor:
        pass
    with pytest.raises(RanDeployError, match="closed"):
        predictor.logits(rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8))


def test_the_cache_may_be_named_by_text(demo, rng):
    with ran_deploy.load(str(demo.bundle), cache_dir=str(demo.cache)) as predictor:
        assert predictor.logits(rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)).shape == (1, 10)


def test_a_backend_that_is_not_here_is_named(demo):
    with pytest.raises(BackendUnavailableError, match="tensorrt"):
        ran_deploy.load(demo.bundle, "tensorrt", cache_dir=demo.cache)


def test_nothing_in_a_bundle_changes_when_it_is_used(demo, tmp_path, rng):
    before = snapshot(demo.bundle)
    for backend in ("openvino", "onnxruntime"):
        with ran_deploy.load(demo.bundle, backend, cache_dir=tmp_path) as predictor:
            predictor.logits(rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    assert snapshot(demo.bundle) == before


def test_an_fp32_bundle_computes_what_pytorch_computes(tiny, tmp_path, rng):
    import torch
    from tiny_cnn import build

    config = ExportConfig(
        checkpoint=tiny.checkpoint,
        output=tmp_path / "tiny.ran",
        precision=Precision.FP32,
        backends=("openvino", "onnxruntime"),
        model="tiny_cnn:build",
        input_size=(20, 28),
        cache_dir=tmp_path / "cache",
    )
    export_bundle(config)
    recipe = open_bundle(config.output).manifest.preprocessing
    module = build().eval()
    module.load_state_dict(torch.load(tiny.checkpoint))
    images = rng.integers(0, 256, (5, 20, 28, 3), dtype=np.uint8)
    normalised = (images / 255 - np.array(recipe.mean)) / np.array(recipe.std)
    with torch.no_grad():
        expected = module(torch.from_numpy(normalised.astype(np.float32)).permute(0, 3, 1, 2)).numpy()
    for backend in config.backends:
        with ran_deploy.load(config.output, backend, cache_dir=config.cache_dir) as predictor:
            difference = np.linalg.norm(predictor.logits(images) - expected) / np.linalg.norm(expected)
            assert difference < 1e-4, backend
