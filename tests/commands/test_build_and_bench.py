from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.bundle_writing import write_bundle
from ran_deploy.commands.build import built_lines, outcome
from ran_deploy.engine.padding import Padding
from ran_deploy.workflows.engines.building import BuiltEngine
from ran_deploy.workflows.engines.padding import MeasuredPadding, PaddingTrial


def test_build_keeps_a_proven_engine_and_says_so_in_json(call, demo, tmp_path):
    cache = tmp_path / "engines"
    options = ["--backend", "onnxruntime", "--batch", "1:2:4", "--cache-dir", cache, "--json"]
    outcome = call("ran-build", demo.bundle, *options)
    built = json.loads(outcome.out)
    assert outcome.status == 0
    assert built["self_test"]["passed"] is True
    assert [check["batch_size"] for check in built["self_test"]["batches"]] == [1, 3, 4]
    assert (tmp_path / built["cache"] / "engine.plan").is_file()


def test_build_adds_the_engine_to_a_triton_model_repository(call, demo, tmp_path):
    options = ["--backend", "onnxruntime", "--batch", "1:2:4", "--cache-dir", tmp_path / "cache", "--json"]
    outcome = call("ran-build", demo.bundle, *options, "--triton", tmp_path / "models")
    folder = tmp_path / "models" / "demo"
    assert json.loads(outcome.out)["triton"] == str(folder / "1")
    assert (folder / "1" / "model.onnx").is_file()
    assert "max_batch_size: 4\n" in (folder / "config.pbtxt").read_text()


def test_build_for_triton_refuses_what_triton_does_not_run_before_it_builds(call, demo, tmp_path):
    options = ["--backend", "tensorrt-rtx", "--cache-dir", tmp_path / "cache", "--triton", tmp_path / "models"]
    call("ran-build", demo.bundle, *options).assert_refused("Triton serves engines of tensorrt, onnxruntime, openvino")
    assert not list(tmp_path.iterdir())


def test_build_writes_a_recipe_for_trtexec_and_builds_nothing(call, demo, tmp_path):
    folder = tmp_path / "jetson"
    options = ["--backend", "tensorrt", "--batch", "1:2:3", "--workspace", "256", "--trtexec", folder, "--json"]
    outcome = call("ran-build", demo.bundle, *options)
    assert json.loads(outcome.out) == {"backend": "tensorrt", "trtexec": str(folder)}
    assert "--memPoolSize=workspace:256" in (folder / "build.sh").read_text()


def test_build_refuses_what_has_no_meaning_for_trtexec(call, demo, tmp_path):
    folder = ["--trtexec", tmp_path / "jetson"]
    call("ran-build", demo.bundle, "--backend", "openvino", *folder).assert_refused("choose --backend tensorrt")
    for option in (
        ("--triton", tmp_path),
        ("--optimization-level", 3),
        ("--version-compatible",),
        ("--pad-batches",),
        ("--device", "cuda:1"),
    ):
        arguments = ["--backend", "tensorrt", *folder, *option]
        call("ran-build", demo.bundle, *arguments).assert_refused(f"builds nothing here: leave {option[0]} out")
    assert not list(tmp_path.iterdir())


def test_build_refuses_compatible_engines_of_tensorrt_rtx(call, demo, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    arguments = ["--backend", "tensorrt-rtx", "--cache-dir", tmp_path / "cache"]
    for option in (("--hardware-compatible", "ampere-plus"), ("--version-compatible",)):
        call("ran-build", demo.bundle, *arguments, *option).assert_refused("choose --backend tensorrt")


def test_build_for_dla_refuses_int8_and_what_it_cannot_do(call, demo, tmp_path):
    arguments = ["--backend", "tensorrt", "--cache-dir", tmp_path / "cache"]
    for asked, message in (
        (("--device", "dla:1", "--batch", "4:4:4"), "--device dla:1 is for FP16 and this bundle is int8"),
        (("--half-pixel",), "add --device dla:0, or leave it out"),
        (("--half-pixel", "--device", "cuda:0"), "add --device dla:0, or leave it out"),
        (("--device", "dla:1", "--trtexec", tmp_path / "recipe"), "builds nothing here: leave --device out"),
        (("--device", "dla:1", "--triton", tmp_path / "models"), "on a GPU. Leave --device dla:1 out."),
    ):
        call("ran-build", demo.bundle, *arguments, *asked).assert_refused(message)
    for backend, where in (("tensorrt-rtx", "on the GPU alone"), ("openvino", "on the CPU")):
        other = ["--backend", backend, "--device", "dla:1"]
        call("ran-build", demo.bundle, *other).assert_refused(
            f"--device dla:1 is a DLA core, and {backend} runs {where}.", "or choose --backend tensorrt."
        )
    assert not list(tmp_path.iterdir())


def test_build_without_weights_refuses_int8_and_triton(call, demo, tmp_path):
    arguments = ["--backend", "tensorrt", "--cache-dir", tmp_path / "cache", "--strip-weights"]
    call("ran-build", demo.bundle, *arguments).assert_refused("this bundle is int8", "export with --precision fp16")
    call("ran-build", demo.bundle, *arguments, "--triton", tmp_path / "models").assert_refused(
        "needs one that has them: build it without --strip-weights"
    )


def test_build_says_which_batches_are_padded():
    trial = PaddingTrial(batch=3, size=4, queued_ms=2.0, padded_ms=1.0)
    measured = MeasuredPadding(padding=(Padding(least=3, size=4), Padding(least=6, size=8)), trials=(trial,))
    built = BuiltEngine(folder=Path(), self_test=None, layers=None, engine_bytes=1, padding=measured)
    assert "padding: batches of 3 run as 4, of 6 to 7 as 8" in built_lines(built)
    assert outcome("tensorrt", built, None)["padding_trials"] == (trial,)
    nothing = replace(built, padding=MeasuredPadding(padding=(), trials=(trial,)))
    assert "padding: no batch size runs faster padded" in built_lines(nothing)
    unasked = replace(built, padding=None)
    assert "padding" not in f"{built_lines(unasked)} {outcome('tensorrt', unasked, None)}"


def test_build_says_what_is_left_without_weights():
    built = BuiltEngine(folder=Path(), self_test=None, layers=None, engine_bytes=3_140_000, graph_bytes=63_960_000)
    lines = built_lines(built)
    assert "without weights: 3.1 MB; the bundle's graph of 64.0 MB gives them at each load" in lines
    assert outcome("tensorrt", built, None)["weights_from_graph_bytes"] == 63_960_000
    whole = replace(built, graph_bytes=None)
    assert "weights" not in f"{built_lines(whole)} {outcome('tensorrt', whole, None)}"


def test_build_options_of_gpus_are_refused_for_other_engines(call, demo, tmp_path):
    for option in (("--workspace", 64), ("--hardware-compatible", "ampere-plus"), ("--optimum-profile",)):
        arguments = ["--backend", "onnxruntime", "--cache-dir", tmp_path / "cache", *option]
        call("ran-build", demo.bundle, *arguments).assert_refused(f"TensorRT's builders alone take {option[0]}; leave")


def test_build_refuses_a_cache_it_cannot_write(call, demo, tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = tmp_path / "file" / "cache"
    call("ran-build", demo.bundle, "--backend", "onnxruntime", "--cache-dir", cache).assert_refused(
        "Cannot write the cache"
    )


def test_build_refuses_a_backend_that_is_not_here_and_an_unknown_one(call, demo):
    call("ran-build", demo.bundle, "--backend", "tensorrt").assert_refused("tensorrt")
    call("ran-build", demo.bundle, "--backend", "abacus").assert_refused("abacus", "openvino")


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "openvino", "onnxruntime"])
def test_a_graph_that_a_vendor_refuses_is_one_line_with_what_to_do(call, demo, tmp_path, backend):
    source = open_bundle(demo.bundle)
    node = onnx.helper.make_node("Mystery", ["image"], ["logits"], name="riddle")
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 32, 32, 3])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 10])
    graph = onnx.helper.make_graph([node], "riddles", [image], [logits])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    graphs = {dialect.graph: model.SerializeToString() for dialect in source.manifest.dialects.values()}
    files = {name: source.read(name) for name in source.manifest.files}
    path = tmp_path / "a riddle.ran"
    write_bundle(path, source.manifest, files | graphs)
    outcome = call("ran-build", path, "--backend", backend, "--cache-dir", tmp_path / "cache")
    outcome.assert_refused("refuses the graph", "Mystery", f"ran-doctor '{path}'", "--verbose")


def test_bench_gives_a_row_for_each_engine_and_batch(call, demo):
    options = ["--backend", "all", "--batch", "1", "--batch", "3", "--seconds", "0.05", "--warm-up", "1", "--json"]
    outcome = call("ran-bench", demo.bundle, *options, "--cache-dir", demo.cache)
    result = json.loads(outcome.out)
    assert outcome.status == 0
    assert (result["digest"], result["precision"]) == (open_bundle(demo.bundle).digest, "int8")
    assert result["devices"].keys() == {"openvino", "onnxruntime"}
    assert result["devices"]["openvino"]["platform"] == result["devices"]["onnxruntime"]["platform"]
    rows = result["rows"]
    assert [(row["backend"], row["batch"]) for row in rows] == [
        (backend, batch) for backend in ("openvino", "onnxruntime") for batch in (1, 3)
    ]
    for row in rows:
        assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p99"]
        assert row["runs"] >= 10


def test_bench_refuses_no_time(call, demo):
    call("ran-bench", demo.bundle, "--seconds", "0", "--cache-dir", demo.cache).assert_refused("--seconds is 0")


def test_bench_looks_at_all_batch_sizes_before_it_measures(call, demo):
    options = ["--batch", 1, "--batch", 64, "--seconds", 60, "--cache-dir", demo.cache]
    outcome = call("ran-bench", demo.bundle, *options)
    outcome.assert_refused("takes batches of 1 to 32, not 64", "--backend openvino --batch 1:8:64.")
    assert ": batch 1" not in outcome.err


def test_a_command_to_run_next_takes_a_bundle_whose_name_has_spaces(call, demo, tmp_path):
    spaced = tmp_path / "my bundle.ran"
    spaced.symlink_to(demo.bundle)
    outcome = call("ran-bench", spaced, "--batch", 64, "--cache-dir", demo.cache)
    outcome.assert_refused(f"ran-build '{spaced}' --backend openvino --batch 1:8:64")


def test_bench_profiles_every_engine_and_says_what_that_costs(call, demo):
    options = ["--profile", "--backend", "all", "--batch", 2, "--seconds", 0.05, "--cache-dir", demo.cache]
    outcome = call("ran-bench", demo.bundle, *options)
    assert outcome.status == 0, outcome.err
    tables = outcome.out.split("\n\n")
    heads = [table for table in tables if ", batch 2: " in table]
    assert [head.split(",")[0] for head in heads] == ["openvino", "onnxruntime"]
    assert "with profiling" in heads[0]
    assert "each the median of means of" in heads[0]
    assert "each the median of" in heads[1]
    for title in ("part of the network", "attention module, ms"):
        assert sum(table.startswith(title) for table in tables) == 2
    modules = next(table for table in tables if table.startswith("attention module")).splitlines()
    assert [line.split()[0] for line in modules[1:]] == ["stage1.module1", "stage2.module1", "stage3.module1"]
    longest = [table.splitlines() for table in tables if table.strip().startswith("longest layers")]
    assert [len(lines) for lines in longest] == [11, 11]


def test_bench_gives_every_layer_in_json(call, demo):
    options = ["--profile", "--backend", "onnxruntime", "--seconds", 0.05, "--cache-dir", demo.cache, "--json"]
    (profile,) = json.loads(call("ran-bench", demo.bundle, *options).out)["profiles"]
    assert (profile["backend"], profile["batch"], profile["statistic"]) == ("onnxruntime", 8, "median")
    layers = profile["layers"]
    assert sum(layer["ms"] for layer in layers) == pytest.approx(profile["layers_ms"])
    stem = [layer for layer in layers if layer["part"] == "stem"]
    assert [(layer["kind"], layer["path"], layer["execution"]) for layer in stem] == [
        ("QLinearConv", "stem.0", "uint8")
    ]


def test_bench_profiles_one_batch_size_that_the_engine_takes(call, demo):
    options = ["--profile", "--cache-dir", demo.cache]
    call("ran-bench", demo.bundle, *options, "--batch", 1, "--batch", 4).assert_refused("Give --batch once")
    call("ran-bench", demo.bundle, *options, "--batch", 64).assert_refused("takes batches of 1 to 32, not 64")
