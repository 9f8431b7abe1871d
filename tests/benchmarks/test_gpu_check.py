"""The script for GPUs, run whole on CPU engines; what only a device prints is parsed from texts of such devices."""

from __future__ import annotations

import importlib
import json
import mmap
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from stand_in_tensorrt import Context, engine_bytes

from ran_deploy.bundle import open_bundle
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.errors import RanDeployError
from ran_deploy.manifest import BatchProfile
from ran_deploy.workflows.engines.loading import load_engine

# The shape of trtexec's summary, by its source (samples/common/sampleReporting.cpp of TensorRT 10).
TRTEXEC = """[11/27/2026-16:00:00] [I] === Performance summary ===
[11/27/2026-16:00:00] [I] Throughput: 250.5 qps
[11/27/2026-16:00:00] [I] Latency: min = 3.9 ms, max = 5 ms, mean = 4.1 ms, median = 4 ms, percentile(90%) = 4.5 ms, \
percentile(95%) = 4.6 ms, percentile(99%) = 4.9 ms
[11/27/2026-16:00:00] [I] H2D Latency: min = 0.1 ms, max = 1 ms, mean = 0.2 ms, median = 0.3 ms
[11/27/2026-16:00:00] [I] GPU Compute Time: min = 3 ms, max = 4 ms, mean = 3.1 ms, median = 3 ms
"""


def test_trtexec_is_read_from_host_to_host(gpu):
    row = gpu("peers").parse_trtexec(TRTEXEC, 8)
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.images_per_second) == (4.0, 4.5, 4.9, 2004.0)
    with pytest.raises(ValueError, match="no summary"):
        gpu("peers").parse_trtexec("&&&& FAILED", 8)


def test_trtexec_runs_our_plan_and_a_failure_is_a_row(gpu, monkeypatch, tmp_path):
    program = tmp_path / "trtexec"
    program.write_text(
        f'#!/bin/sh\ntest -s "${{1#--loadEngine=}}" || exit 9\ncase $2 in *:8x*) cat <<E\n{TRTEXEC}\nE\n;; '
        "*) echo 'out of memory' >&2; exit 1;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(gpu("peers"), "find_trtexec", lambda: str(program))
    good, bad = gpu("peers").trtexec_rows(b"plan", (224, 320), (8, 128), 1.0)
    assert (good.batch, good.p50_ms, good.problem) == (8, 4.0, None)
    assert (bad.batch, bad.problem) == (128, "out of memory")
    monkeypatch.setattr(gpu("peers"), "find_trtexec", lambda: None)
    assert [row.problem for row in gpu("peers").trtexec_rows(b"plan", (2, 2), (1,), 1.0)] == ["trtexec is not here"]


def test_a_runner_that_fails_is_a_row_and_the_others_are_timed_in_turn(gpu):
    seen = []

    def good(name):
        return lambda images: seen.append(name) or images

    def bad(images):
        raise RuntimeError("CUDA out of memory\nsecond line")

    runners = {"ran-deploy": good("a"), "bad": bad, "peer": good("b")}
    rows = {row.runner: row for row in gpu("measure").rows_of_batch(runners, np.zeros((2, 4, 4, 3), np.uint8), 1e-6)}
    assert rows["bad"].problem == "CUDA out of memory second line"
    assert rows["ran-deploy"].runs == rows["peer"].runs >= 3
    assert seen[-4:] == ["a", "b", "a", "b"]


def test_ratios_are_to_ours_at_the_same_batch(gpu):
    timed = gpu("results").Timed
    rows = [timed(runner=n, batch=b, p50_ms=m) for n, b, m in (("ran-deploy", 8, 4.0), ("x", 1, 3.0), ("x", 8, 6.0))]
    rows.append(timed(runner="y", batch=8, problem="no"))
    found = gpu("measure").with_ratios(rows)
    assert [(row.runner, row.batch, row.ratio) for row in found] == [
        ("x", 1, None),
        ("ran-deploy", 8, 1.0),
        ("x", 8, 1.5),
        ("y", 8, None),
    ]


def test_a_leak_is_what_grows_with_the_batches(gpu):
    kept, images = [], np.zeros((1, 2, 2, 3), np.uint8)

    def hoard(batch):
        pages = mmap.mmap(-1, 2**20)  # 1 MiB a batch, of its own: the heap may have as much to spare
        pages.write(b"1" * 2**20)
        kept.append(pages)
        return batch

    checks = gpu("checks")
    assert checks.leak(hoard, images, 60).leaks
    kept.clear()
    assert not checks.leak(lambda batch: batch, images, 60).leaks


def test_threads_are_counted_together(gpu):
    found = gpu("checks").overlaps(lambda images: images, np.zeros((2, 2, 2, 3), np.uint8), 0.001)
    assert [(each.threads, each.batch) for each in found] == [(2, 2), (4, 2)]
    assert all(each.images_per_second > 0 and each.gain > 0 for each in found)


def test_a_checkpoint_is_the_one_the_bundle_was_made_of(gpu, demo, tmp_path):
    peers = gpu("peers")
    bundle = open_bundle(demo.bundle)
    (tmp_path / demo.checkpoint.name).write_bytes(b"another")
    with pytest.raises(Exception, match="give its folder as --checkpoints"):
        peers.find_checkpoint(peers.Setting(bundle=bundle, checkpoints=(tmp_path,)))
    setting = peers.Setting(bundle=bundle, checkpoints=(tmp_path, demo.checkpoint.parent))
    assert peers.find_checkpoint(setting) == demo.checkpoint


def test_pytorch_beside_it_computes_the_same_network(gpu, demo):
    pytest.importorskip("torch")
    peers = gpu("peers")
    bundle = open_bundle(demo.bundle)
    golden = importlib.import_module("ran_deploy.workflows.engines.golden").read_golden(bundle)
    infer = peers.eager(peers.Setting(bundle=bundle, checkpoints=(demo.checkpoint,)))
    np.testing.assert_allclose(infer(golden.inputs[:3]), golden.logits["pytorch"][:3], rtol=1e-3, atol=1e-4)


def test_the_command_runs_whole_on_cpu_engines(gpu, demo, tmp_path, capsys):
    output = tmp_path / "result.json"
    options = ["--backend", "onnxruntime", "--backend", "tensorrt", "--batches", "1", "3", "--seconds", "0.01"]
    options += ["--leak-batches", "5", "--data", demo.test, "--images", "20", "--cache-dir", demo.cache]
    bundles = [demo.bundle, tmp_path / "missing.ran"]
    status = gpu("gpu_check").main([str(word) for word in [*bundles, *options, "--output", output]])
    report = json.loads(output.read_text())
    ours, tensorrt = report["engines"]
    assert status == 0
    assert report["schema_version"] == 1
    assert "golden self-test passed" in ours["self_test"]
    assert ours["accuracy"]["images"] == 20
    rows = {(row["runner"], row["batch"]): row for row in ours["timings"]}
    assert all(rows[name, batch]["p50_ms"] > 0 for name in ("ran-deploy", "PyTorch eager") for batch in (1, 3))
    assert rows["ran-deploy", 3]["ratio"] == 1.0
    assert "CUDA" in rows["torch.compile fp16", 1]["problem"]
    assert ours["leak"]["batches"] == 5
    assert tensorrt["load_seconds"] is None or tensorrt["self_test"]
    assert "does not exist" in report["problems"][str(bundles[1])]
    table = capsys.readouterr().out
    assert table == output.with_suffix(".md").read_text() + "\n"
    assert "| batch | runner | median ms |" in table
    assert "missing.ran" in table


REFUSED = {
    "a GPU that refuses every engine": (("tensorrt", "tensorrt-rtx"), 1, True),
    "no GPU": (("tensorrt",), 0, False),
    "an engine that no GPU was asked for": (("onnxruntime",), 1, False),
}


@pytest.mark.parametrize("case", REFUSED)
def test_where_a_gpu_refuses_every_engine_the_evidence_is_kept_and_the_runtime_is_checked(
    gpu, demo, stand_in, monkeypatch, tmp_path, case
):
    backends, count, checked = REFUSED[case]
    stand_in("tensorrt", count=count)  # which has no builder
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    results = gpu("runtime_results")
    check = results.Check(name="CUDA graphs", outcome=results.Outcome.RIGHT, figures={"launched": 20})
    asked = []

    def check_each(seconds, leak_batches):
        asked.append((seconds, leak_batches))
        return (results.BindingResult(binding="cuda-python", version="13", checks=(check,)),)

    monkeypatch.setattr(gpu("gpu_check"), "check_each", check_each)
    output = tmp_path / "result.json"
    options = ["--peers", "--batches", "1", "--seconds", "0.01", "--leak-batches", "5", "--output", output]
    options += [word for backend in backends for word in ("--backend", backend)]
    options += ["--cache-dir", demo.cache if backends == ("onnxruntime",) else tmp_path / "cache"]
    status = gpu("gpu_check").main([str(word) for word in [demo.bundle, *options]])
    report = json.loads(output.read_text())
    assert asked == ([(0.01, 5)] if checked else [])
    assert [binding["checks"][0]["name"] for binding in report["runtime"]] == ["CUDA graphs"] * checked
    assert ("| CUDA graphs | right | launched 20 |" in output.with_suffix(".md").read_text()) == checked
    if checked:
        assert status == 2
        refusals = {engine["backend"]: engine["problems"]["engine"] for engine in report["engines"]}
        assert "Cannot import tensorrt_rtx" in refusals["tensorrt-rtx"]
        assert "Builder" in refusals["tensorrt"]
        assert report["device"]["cuda"]["name"] == "stand-in GPU 0"
        assert report["device"]["cuda"]["driver supports CUDA"] == "12.6"
        assert report["device"]["bindings"]["cuda-python"]
        assert report["tools"]["numpy"] == np.__version__


@pytest.mark.parametrize(("name", "reason"), [("result.txt", "expected NAME.json"), ("no/result.json", "Cannot write")])
def test_a_result_that_could_not_be_written_is_refused_before_measuring(gpu, tmp_path, name, reason):
    with pytest.raises(RanDeployError, match=reason):
        gpu("gpu_check").main(["missing.ran", "--output", str(tmp_path / name)])


@pytest.mark.parametrize("wrong", [("--seconds", "nan"), ("--seconds", "inf"), ("--images", "-3"), ("--batches", "0")])
def test_numbers_that_cannot_work_are_refused_before_measuring(gpu, tmp_path, wrong):
    with pytest.raises(RanDeployError, match="--batches, --images, --seconds and --leak-batches must be positive"):
        gpu("gpu_check").main(["missing.ran", *wrong, "--output", str(tmp_path / "result.json")])


def test_no_engine_at_all_is_exit_status_2_and_a_wrong_one_1(gpu):
    result = gpu("results").EngineResult(
        bundle="b", architecture="a", precision="int8", input_size=(2, 3), digest="0", backend="tensorrt"
    )
    status = gpu("gpu_check").exit_status
    right = replace(result, load_seconds=1.0, self_test="passed")
    assert status([result]) == 2
    assert status([result, right]) == 0
    assert status([right, replace(right, self_test=None)]) == 1
    leak = gpu("results").Leak(batches=9, host_bytes=2**30, device_bytes=None, leaks=True)
    assert status([replace(right, leak=leak)]) == 1


def test_a_pipe_in_a_name_does_not_break_the_table(gpu):
    results = gpu("results")
    engine = results.EngineResult(
        bundle="a|b",
        architecture="a",
        precision="int8",
        input_size=(2, 3),
        digest="0",
        backend="tensorrt",
        problems={"engine": "x | y"},
    )
    report = results.Report(
        created="now",
        command="",
        tools={},
        device={"platform": "Linux", "cuda": {"problem": "none"}},
        device_after={},
        engines=(engine,),
    )
    rows = [line for line in results.markdown(report).splitlines() if line.startswith("| a")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 8


def test_two_builds_are_timed_in_a_cache_of_their_own(gpu, demo):
    bundle = open_bundle(demo.bundle)
    found = gpu("checks").builds(bundle, "onnxruntime", bundle.manifest.batch)
    assert found.first_seconds > 0
    assert found.again_seconds > 0


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
def test_graphs_and_slots_are_each_compared_with_a_runner_that_has_none(gpu, stand_in, backend):
    device = stand_in(backend.replace("-", "_"), delay_s=0.004)
    engine = CachedEngine(data=engine_bytes([(1, 4, 8)]), batch=BatchProfile(), required={}, proven=True)
    images = np.zeros((4, 9, 14, 3), np.uint8)
    gains = gpu("gains")
    found = gains.graph_gains(backend, engine, [images[:1], images], 0.01)
    assert [(gain.of, gain.batch, gain.threads) for gain in found] == [("CUDA graphs", 1, 1), ("CUDA graphs", 4, 1)]
    assert all(gain.gain > 0 for gain in found)
    captured = {"tensorrt": "cudaStreamBeginCapture", "tensorrt-rtx": "graphs of TensorRT-RTX"}[backend]
    assert device.calls[captured] == 2  # one for each size, of one runner alone
    device.running.clear()
    slots = gains.slot_gain(backend, engine, images, 0.5)
    assert device.running["most"] == 2
    assert (slots.of, slots.batch, slots.threads) == ("2 batches under way", 4, 4)
    assert slots.gain > 1.1  # the stand-in waits most of a batch's time, which another one can use


def test_batches_of_other_sizes_are_timed_padded_and_with_a_graph_of_their_own(gpu, stand_in, monkeypatch):
    device = stand_in(delay_s=0.0)
    execute = Context.execute_async_v3

    def launched(context, stream):
        time.sleep(0.02)  # as the host takes to launch kernels, and not for a graph
        return execute(context, stream)

    monkeypatch.setattr(Context, "execute_async_v3", launched)
    engine = CachedEngine(
        data=engine_bytes([(1, 4, 8)]), batch=BatchProfile(optimum=4, maximum=8), required={}, proven=True
    )
    found, graph_bytes = gpu("gains").padding_gains("tensorrt", engine, np.zeros((9, 14, 3), np.uint8), 0.02)
    assert [(gain.of, gain.batch) for gain in found] == [
        ("padding to 4", 3),
        ("padding to 8", 6),
        ("CUDA graphs", 3),
        ("CUDA graphs", 6),
    ]
    assert all(gain.gain > 1.5 for gain in found)
    assert graph_bytes == 0  # a stand-in's contexts and graphs take no memory
    assert device.live() == {}


def test_options_of_a_build_are_proven_and_timed_beside_the_engine_without(gpu, demo):
    bundle = open_bundle(demo.bundle)
    options = importlib.import_module("ran_deploy.converters.builders").GpuOptions
    asked = {
        "--optimum-profile": options(optimum_profile=True),
        "--version-compatible": options(version_compatible=True),
    }
    with load_engine(bundle, "onnxruntime", cache_dir=demo.cache).predictor as predictor:
        images = np.zeros((3, *bundle.manifest.preprocessing.crop, 3), np.uint8)
        good, bad = gpu("variants").variants(bundle, predictor, images, 0.01, asked)
    assert "golden self-test passed" in good.self_test
    assert good.engine_bytes > 10_000
    assert 0 < good.load_seconds < 60
    assert good.relative_l2 == 0.0  # ONNX Runtime has no such option, so its engine is the same
    assert 0.1 < good.ratio < 10
    assert (good.problem, bad.ratio) == (None, None)
    assert "tensorrt" in bad.problem  # an engine of ONNX Runtime has no version of TensorRT
