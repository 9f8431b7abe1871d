"""Which batches are padded. GPU, TensorRT and builder are stand-ins, whose costs are those of the test."""

from __future__ import annotations

import functools
import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_bundle import bundle_of_row_sums
from stand_in_tensorrt import Context, engine_bytes, row_sums

from ran_deploy.commands.doctor import report_lines
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.engine.padding import Padding, padded_size
from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.runtime.timing import Timing
from ran_deploy.workflows.doctor import device_report
from ran_deploy.workflows.engines import building, padding, timed_build
from ran_deploy.workflows.engines.building import build_engine
from ran_deploy.workflows.engines.loading import load_engine
from ran_deploy.workflows.engines.padding import FASTER, measure_padding, time_padding

IMAGE = np.zeros((9, 14, 3), np.uint8)
LAUNCH_S = 0.02


def engine(minimum: int, optimum: int, maximum: int) -> CachedEngine:
    sizes = BatchProfile(minimum=minimum, optimum=optimum, maximum=maximum)
    data = engine_bytes([(minimum, optimum, maximum)])
    return CachedEngine(data=data, batch=sizes, required={}, proven=False)


@pytest.fixture
def launches_cost(monkeypatch):
    """Let the host take LAUNCH_S to queue a batch, as it does to launch hundreds of kernels; a graph takes nothing."""
    execute = Context.execute_async_v3

    def slow(context, stream):
        time.sleep(LAUNCH_S)
        return execute(context, stream)

    monkeypatch.setattr(Context, "execute_async_v3", slow)


@pytest.mark.parametrize("sizes", [(1, 8, 32), (2, 24, 100), (1, 5, 7)])
@pytest.mark.parametrize("launch", [0.0, 0.3, 1.1, 4.0, 50.0])
def test_the_smallest_batch_that_gains_is_found_for_every_size(stand_in, monkeypatch, sizes, launch):
    # Milliseconds by a formula: queued, 0.1 an image and the launches; padded, 0.1 an image of the whole.
    def timed(calls, seconds):
        batch = len(calls["queued"].args[0]["image"])
        assert len(calls["padded"].args[0]["image"]) == batch
        size = next(each.size for each in padding.every_padding(of.batch) if each.least <= batch < each.size)
        costs = {"queued": launch + 0.1 * batch, "padded": 0.1 * size}
        return {key: Timing((costs.get(key, 9.0),)) for key in calls}

    stand_in(delay_s=0.0)
    of = engine(*sizes)
    monkeypatch.setattr(padding, "measure_in_turn", timed)
    found = measure_padding("tensorrt", of, IMAGE)
    steps = sorted({2**k for k in range(8) if sizes[0] <= 2**k <= sizes[2]} | set(sizes))
    for batch in range(sizes[0], sizes[2] + 1):
        size = min(step for step in steps if step >= batch)
        gains = 0.1 * size < FASTER * (launch + 0.1 * batch)
        assert padded_size(found.padding, batch) == (size if gains else batch), batch
    assert len(found.trials) <= sum((high - low - 1).bit_length() for low, high in itertools.pairwise(steps))


def test_batches_are_padded_where_launches_cost_more_than_images(stand_in, launches_cost):
    stand_in(delay_s=0.0)
    found = measure_padding("tensorrt", engine(1, 4, 8), IMAGE, seconds=0.05)
    assert found.padding == (Padding(least=3, size=4), Padding(least=5, size=8))
    for trial in found.trials:
        assert trial.queued_ms > 1000 * LAUNCH_S
        assert trial.padded_ms < trial.queued_ms / 2


def test_batches_stay_as_they_are_where_images_cost_more_than_launches(stand_in, monkeypatch):
    gpu = stand_in(delay_s=0.0)
    read = gpu.read

    def slow(address, size):
        time.sleep(size * 1e-5)
        return read(address, size)

    monkeypatch.setattr(gpu, "read", slow)
    found = measure_padding("tensorrt", engine(1, 8, 8), IMAGE, seconds=0.05)
    assert Padding(least=5, size=8) not in found.padding  # five images in place of eight


def test_the_middle_of_each_gap_is_timed_for_the_figures(stand_in, launches_cost):
    stand_in(delay_s=0.0)
    trials = time_padding("tensorrt", engine(1, 4, 16), IMAGE, seconds=0.02)
    assert [(trial.batch, trial.size) for trial in trials] == [(3, 4), (6, 8), (12, 16)]
    assert all(trial.faster for trial in trials)


@pytest.fixture
def bundle(demo, tmp_path):
    """The demo bundle, whose golden logits are what the stand-in of an engine computes."""
    return bundle_of_row_sums(tmp_path / "rows.ran", demo.bundle)


@pytest.fixture
def build(bundle, stand_in, tmp_path, monkeypatch):
    """Return a GPU, and what has an engine of the stand-in built for batches of 1 to 8."""
    gpu, plan = stand_in(delay_s=0.0), engine_bytes([(1, 4, 8)], image=(*bundle.manifest.preprocessing.crop, 3))
    made = SimpleNamespace(build=lambda graph, options, progress=None: plan)
    monkeypatch.setattr(timed_build, "open_builder", lambda backend: made)
    monkeypatch.setattr(building, "inspect_engine", lambda package, data, traits: '{"Layers": []}')
    sizes = BatchProfile(minimum=1, optimum=4, maximum=8)
    return gpu, functools.partial(build_engine, bundle, "tensorrt", cache_dir=tmp_path, batch=sizes)


def test_what_was_measured_once_is_kept_proven_and_done_at_every_load(
    bundle, build, launches_cost, tmp_path, monkeypatch
):
    _, built = build
    first = built(pad_batches=True)
    assert first.padding.padding == (Padding(least=3, size=4), Padding(least=5, size=8))
    assert [check.batch_size for check in first.self_test.batches] == [1, 3, 5, 8]
    monkeypatch.setattr(padding, "measure_in_turn", None)  # never again
    with load_engine(bundle, "tensorrt", cache_dir=tmp_path).predictor as predictor:
        assert predictor.padding == first.padding.padding
        images = np.random.default_rng(2).integers(0, 256, (3, *bundle.manifest.preprocessing.crop, 3), dtype=np.uint8)
        np.testing.assert_array_equal(predictor.infer_batch(images), row_sums(images))
    says = "  padding: batches of 3 run as 4, of 5 to 7 as 8"
    assert says in report_lines(device_report(bundle, tmp_path))
    assert built().padding is None
    assert says not in report_lines(device_report(bundle, tmp_path))


def test_an_engine_whose_batches_cannot_be_timed_is_kept_as_it_is(build, caplog):
    gpu, built = build
    gpu.fail("create_execution_context", "MemoryAllocation")
    engine = built(pad_batches=True)
    assert engine.padding is None
    assert engine.self_test.passed
    assert "no batches are padded, as they cannot be timed: tensorrt cannot prepare this engine" in caplog.text


def test_batches_are_timed_on_the_gpu_that_runs_them_alone(bundle, tmp_path):
    with pytest.raises(ConfigError, match="onnxruntime runs on the CPU: leave it out"):
        build_engine(bundle, "onnxruntime", cache_dir=tmp_path, pad_batches=True)
    with pytest.raises(BackendUnavailableError, match="--pad-batches times batches on the GPU that will run them: "):
        build_engine(bundle, "tensorrt", cache_dir=tmp_path, pad_batches=True)
    assert not list((tmp_path / bundle.digest).iterdir())


@pytest.mark.parametrize("sizes", [(4, 4, 4), (1, 1, 2)])
def test_an_engine_without_a_size_to_pad_is_not_built_for_that(build, sizes):
    _, built = build
    batch = BatchProfile(minimum=sizes[0], optimum=sizes[1], maximum=sizes[2])
    with pytest.raises(ConfigError, match=f"batches of {sizes[0]} to {sizes[2]} has none: leave it out"):
        built(pad_batches=True, batch=batch)
