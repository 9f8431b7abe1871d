"""The accuracy budget: the one unit that needs float is found, in each dialect, again after a kill, or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.float_regions import find_float_regions
from ran_deploy.converters.graph import model_bytes, model_from_bytes
from ran_deploy.converters.quantize import find_calibrated_tensors
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import BudgetError, DatasetError
from ran_deploy.journal import Journal
from ran_deploy.manifest import Task
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.workflows.evaluation.images import read_images
from ran_deploy.workflows.exporting import budget_drop, budget_search
from ran_deploy.workflows.exporting.budget_drop import DropMeter, blocks_of
from ran_deploy.workflows.exporting.quantization import int8_graph

SCRIPT = Path(__file__).parent / "hard_search.py"


@pytest.fixture(scope="session")
def hard():
    spec = importlib.util.spec_from_file_location("hard_search", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("searches")


@pytest.fixture(scope="session")
def found(hard, demo, cache):
    """The search on the hard network, not interrupted: what it found, and its lines."""
    return hard.search(demo.bundle, demo.calibration, demo.test, cache)


def journal_of(cache: Path) -> Path:
    (path,) = (cache / "searches").glob("*.jsonl")
    return path


def test_the_hard_network_computes_what_the_network_did_with_two_equal_channels(hard, demo, rng):
    bundle = open_bundle(demo.bundle)
    model = model_from_bytes(bundle.read("reference.onnx"))
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    outputs = []
    for cancelling in (0, 24):
        hard.CANCELLING = np.float32(cancelling)
        outputs.append(open_reference(model_bytes(hard.hardened(model))).infer({"image": images})["logits"])
    hard.CANCELLING = np.float32(24)
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)


def test_exactly_the_region_that_needs_float_is_kept(hard, found):
    within, _ = found
    assert list(within.kept_in_float) == [hard.HARD_REGION]
    assert [region.name for region in within.record.regions if region.kept_in_float] == [hard.HARD_REGION]


def test_the_kept_nodes_alone_have_no_quantised_input(hard, found, demo):
    within, _ = found
    regions = find_float_regions(hard.hardened(model_from_bytes(open_bundle(demo.bundle).read("reference.onnx"))).graph)
    expected = {node for region in regions if region.name == hard.HARD_REGION for node in region.nodes}
    convolutions = [node for node in within.quantized.model.graph if node.op_type in ("Conv", "Gemm")]
    in_float = {node.name for node in convolutions if node.inputs[0].producer().op_type != "DequantizeLinear"}
    assert in_float == expected


def test_the_record_says_what_was_measured(found):
    record = found[0].record
    assert [look.kept_regions for look in record.looks] == [0, 1]
    assert [look.passed for look in record.looks] == [False, True]
    assert record.drops == record.looks[1:]
    assert record.drops[0].images == len(record.image_sha256) == 512
    assert record.drops[0].bound_pp <= record.max_drop_pp == 3
    assert sum(region.multiply_adds for region in record.regions) == pytest.approx(1)
    assert record.float_multiply_adds == record.regions[0].multiply_adds < 0.1
    errors = [region.output_error for region in record.regions]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[1]


def test_a_single_method_is_not_said_to_be_chosen(found):
    (line,) = [line for line in found[1] if line.startswith("all INT8 moves the outputs by relative L2 minmax 0.")]
    assert "is taken" not in line


def test_a_hopeless_look_ends_before_all_images(found):
    assert found[0].record.looks[0].images < 512


def test_a_search_that_is_done_is_recalled_without_measuring(hard, demo, cache, found):
    before = journal_of(cache).read_bytes()
    again, lines = hard.search(demo.bundle, demo.calibration, demo.test, cache)
    assert (again.record, again.kept_in_float) == (found[0].record, found[0].kept_in_float)
    assert any("on record" in line for line in lines)
    assert journal_of(cache).read_bytes() == before


def test_a_killed_search_goes_on_and_gives_the_same_result(demo, found, cache, tmp_path):
    command = [sys.executable, SCRIPT, demo.bundle, demo.calibration, demo.test, tmp_path]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not any(len(path.read_bytes().splitlines()) >= 5 for path in (tmp_path / "searches").glob("*.jsonl")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    journal = journal_of(tmp_path)
    assert journal.name == journal_of(cache).name
    measured = journal.read_bytes()
    assert len(measured.splitlines()) < len(journal_of(cache).read_bytes().splitlines())
    journal.write_bytes(measured[:-7])  # as if the kill had torn the last line
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    record, kept, lines = json.loads(done.stdout)
    assert kept == found[0].kept_in_float
    assert [look["kept_regions"] for look in record["looks"]] == [0, 1]
    assert any("on record" in line for line in lines)
    assert journal.read_bytes().startswith(measured[:-7])


def test_other_images_start_afresh(hard, demo, found, cache):
    del found
    hard.search(demo.bundle, demo.calibration, demo.test, cache, images=8)
    assert len(list((cache / "searches").glob("*.jsonl"))) == 2


def test_too_few_images_are_refused_before_anything_is_measured(hard, demo, tmp_path):
    with pytest.raises(
        BudgetError, match=r"^512 validation images cannot prove .* at most 0\.5 .* would be 0\.97; about"
    ):
        hard.search(demo.bundle, demo.calibration, demo.test, tmp_path, max_drop_pp=0.5)
    assert not list(tmp_path.iterdir())


def test_calibration_images_cannot_validate(hard, demo, tmp_path):
    with pytest.raises(DatasetError, match="were used for calibration"):
        hard.search(demo.bundle, demo.calibration, demo.calibration, tmp_path)


def test_where_enough_may_not_be_kept_it_says_how_close_it_came_and_what_cost_most(hard, demo, cache, monkeypatch):
    monkeypatch.setattr(budget_search, "MOST_FLOAT", 0.05)  # less than the hard region has
    with pytest.raises(BudgetError, match=r"^No INT8 within 3 points was found") as caught:
        hard.search(demo.bundle, demo.calibration, demo.test, cache)
    text = str(caught.value)
    assert "all in INT8, where at most 5% of the multiply-adds may be: onnxruntime drop +" in text
    assert f"{hard.HARD_REGION} (0." in text
    assert "--precision fp16" in text
    assert caught.value.exit_status == 1


def test_a_dialect_that_is_lowered_otherwise_is_measured_anew(demo, tmp_path, monkeypatch):
    bundle = open_bundle(demo.bundle)
    reference = model_from_bytes(bundle.read("reference.onnx"))
    images = read_images(open_dataset(demo.test, Split.TEST), bundle.manifest.preprocessing, limit=32)
    artifact = int8_graph(reference, dict.fromkeys(find_calibrated_tensors(reference), 4.0))
    journal = Journal(tmp_path / "x.jsonl")
    meter = DropMeter.of(reference, images, Task.CLASSIFICATION, journal, lambda done, total: None)
    for _ in range(2):
        meter.measure(artifact, "onnxruntime", lambda so_far: False)
        assert len(journal) == 1
    monkeypatch.setattr(budget_drop, "lower", lambda model, dialect, precision: lower(model, "tensorrt", precision))
    meter.measure(artifact, "onnxruntime", lambda so_far: False)
    assert len(journal) == 2


@pytest.mark.parametrize("images", [1, 127, 128, 129, 512, 1000])
def test_blocks_cover_all_images_once_and_double(images):
    blocks = blocks_of(images, Task.CLASSIFICATION)
    assert [index for block in blocks for index in block] == list(range(images))
    assert all(len(block) <= max(block.start, 128) for block in blocks)
    assert list(blocks_of(images, Task.EMBEDDING)) == [range(images)]


def test_the_drop_is_that_of_labels_counted_by_hand(demo, tmp_path):
    """Against predictions of both graphs made here one image at a time, for the first 160 images."""
    bundle = open_bundle(demo.bundle)
    reference = model_from_bytes(bundle.read("reference.onnx"))
    dataset = open_dataset(demo.test, Split.TEST)
    images = read_images(dataset, bundle.manifest.preprocessing, limit=160)
    # far too narrow: a drop worth counting
    artifact = int8_graph(reference, dict.fromkeys(find_calibrated_tensors(reference), 0.4))
    meter = DropMeter.of(
        reference, images, Task.CLASSIFICATION, Journal(tmp_path / "x.jsonl"), lambda done, total: None
    )
    outcome = meter.measure(artifact, "tensorrt", lambda so_far: False)
    lowered = lower(artifact, "tensorrt", Precision.INT8)
    labels = np.array([dataset.label(index) for index in images.indices])
    right = [predictions(model, images) == labels for model in (reference, lowered)]
    assert (outcome.images, outcome.lost, outcome.gained) == (
        160,
        int((right[0] & ~right[1]).sum()),
        int((right[1] & ~right[0]).sum()),
    )
    assert outcome.lost > 5


def predictions(model, images) -> np.ndarray:
    runner = open_reference(model_bytes(model))
    return np.concatenate([runner.infer({"image": batch})["logits"].argmax(axis=1) for batch, _ in images.batches()])


def test_a_network_that_guesses_passes_nothing(demo, tmp_path):
    bundle = open_bundle(demo.bundle)
    reference = model_from_bytes(bundle.read("reference.onnx"))
    dataset = open_dataset(demo.test, Split.TEST)
    shifted = replace(dataset, labels=(dataset.labels + 1) % 10)
    images = read_images(shifted, bundle.manifest.preprocessing, limit=64)
    with pytest.raises(BudgetError, match="hardly does better than guessing on 64 images"):
        DropMeter.of(reference, images, Task.CLASSIFICATION, Journal(tmp_path / "x.jsonl"), lambda done, total: None)
