from __future__ import annotations

from dataclasses import replace

import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.manifest import BatchProfile, EngineRecord, SelfTestStatus
from ran_deploy.targets import target_from_text
from ran_deploy.workflows.preflight import GraphFacts, Verdict, engine_fate, find_obstacles, graph_remarks, judge

INT8 = GraphFacts(opset=19, align_corners=("a", "b"), fp16_scales=4)
ORIN = {
    "tensorrt": "10.3.0",
    "platform": "Linux aarch64",
    "GPU": "Orin",
    "compute capability": "8.7",
}
COMPATIBLE = {"tensorrt": ">=10.3.0.26,<11", "platform": "Linux x86_64", "compute capability": ">=8.0"}
RTX = {"tensorrt_rtx": "1.7.1.116", "platform": "Linux x86_64"}


def engine(backend, fingerprint):
    return EngineRecord(
        backend=backend,
        file=f"engines/{backend}.plan",
        fingerprint=fingerprint,
        batch=BatchProfile(),
        self_test=SelfTestStatus.PENDING,
    )


@pytest.mark.parametrize(
    ("backend", "fingerprint", "target", "verdict", "words"),
    [
        ("tensorrt", ORIN, "tensorrt-10.3.0:sm87", Verdict.UNKNOWN, "which must be the GPU there"),
        ("tensorrt", ORIN, "jetpack-6.2", Verdict.UNKNOWN, "10.3.0, which must be the exact version"),
        ("tensorrt", ORIN, "tensorrt-10.30:sm87", Verdict.REBUILD, "built by tensorrt 10.3.0"),
        ("tensorrt", ORIN, "tensorrt-11.4:sm87", Verdict.REBUILD, "has 11.4"),
        ("tensorrt", ORIN, "tensorrt-10.3.0:sm90", Verdict.REBUILD, "built for compute capability 8.7"),
        ("tensorrt", {**ORIN, "platform": "Linux x86_64"}, "jetpack-6.2", Verdict.REBUILD, "is Linux aarch64"),
        ("tensorrt", COMPATIBLE, "tensorrt-10.16:sm90", Verdict.UNKNOWN, "built on Linux x86_64"),
        (
            "tensorrt",
            COMPATIBLE,
            "tensorrt-10.3:sm90",
            Verdict.UNKNOWN,
            ">=10.3.0.26,<11, which the version there must be",
        ),
        ("tensorrt", COMPATIBLE, "tensorrt-10.2:sm90", Verdict.REBUILD, "is for tensorrt >=10.3.0.26,<11"),
        ("tensorrt", COMPATIBLE, "tensorrt-11.0:sm90", Verdict.REBUILD, "tensorrt-11.0:sm90 has 11.0"),
        ("tensorrt", COMPATIBLE, "tensorrt-10.16:sm75", Verdict.REBUILD, "built for compute capability >=8.0"),
        ("tensorrt", {**COMPATIBLE, "platform": "Linux aarch64"}, "jetpack-6.2", Verdict.UNKNOWN, "on no Jetson"),
        (
            "tensorrt",
            {**ORIN, "tensorrt": ">=10.3,<11"},
            "jetpack-6.2",
            Verdict.UNKNOWN,
            "built on Orin, which must be",
        ),
        ("tensorrt", {}, "jetpack-6.2", Verdict.UNKNOWN, "not on record"),
        ("tensorrt-rtx", RTX, "tensorrt-rtx-1.7.1.116:sm89", Verdict.UNKNOWN, "built on Linux x86_64"),
        ("tensorrt-rtx", RTX, "tensorrt-rtx-1.8:sm89", Verdict.REBUILD, "has 1.8"),
        ("tensorrt-rtx", RTX, "tensorrt-rtx-1.7:sm75", Verdict.REBUILD, "no kernels for compute capability 7.5"),
        ("tensorrt-rtx", RTX, "tensorrt-rtx-1.7:sm90", Verdict.UNKNOWN, "9.0 is not among them"),
    ],
)
def test_an_engine_is_bound_to_version_platform_and_gpu(backend, fingerprint, target, verdict, words):
    found, reasons = engine_fate(backend, engine(backend, fingerprint), target_from_text(target))
    assert found is verdict
    assert words in " ".join(reasons)


def test_an_engine_whose_every_part_is_known_to_fit_runs():
    target = replace(target_from_text("tensorrt-rtx-1.7.1.116:sm89"), platform="Linux x86_64")
    assert engine_fate("tensorrt-rtx", engine("tensorrt-rtx", RTX), target)[0] is Verdict.RUNS


def test_a_compatible_engine_runs_on_another_gpu_with_a_later_version():
    target = replace(target_from_text("tensorrt-10.16:sm90"), platform="Linux x86_64")
    assert engine_fate("tensorrt", engine("tensorrt", COMPATIBLE), target)[0] is Verdict.RUNS


@pytest.mark.parametrize(
    ("target", "facts", "words"),
    [
        ("tensorrt-8.5:sm87", INT8, ("expected 10.1 or newer", "opset 19; the parser of tensorrt 8.5 reads up to 17")),
        ("tensorrt-8.5:sm87", None, ("expected 10.1 or newer",)),
        ("tensorrt-10.0:sm87", INT8, ("expected 10.1 or newer",)),
        ("tensorrt-10.3:sm87", INT8, ()),
        ("tensorrt-10.4:sm70", INT8, ()),
        ("tensorrt-10.5:sm70", INT8, ("needs compute capability 7.5; the GPU has 7.0",)),
        ("tensorrt-11.4:sm90", INT8, ()),
        ("tensorrt-11.4:sm90", replace(INT8, unsigned=("QuantizeLinear of 'q'",)), ("'q' has an unsigned zero point",)),
        ("openvino-2026.4", replace(INT8, unsigned=("QuantizeLinear of 'q'",)), ()),
        ("tensorrt-rtx-1.7:sm70", INT8, ("needs compute capability 7.5",)),
        ("openvino-2025.1", INT8, ("expected 2025.2 or newer",)),
        ("openvino-2025.2", INT8, ()),
        ("onnxruntime-1.20", INT8, ("expected 1.21 or newer",)),
    ],
)
def test_obstacles_are_what_no_new_engine_mends(target, facts, words):
    found = find_obstacles(target_from_text(target), facts)
    assert len(found) == len(words)
    assert all(word in reason for word, reason in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("target", "facts", "words"),
    [
        ("tensorrt-10.3:sm87", INT8, "reads is unknown here"),
        ("tensorrt-10.15:sm90", INT8, "which its parser reads"),
        ("tensorrt-11.3:sm87", INT8, "NVIDIA does not support TensorRT 11.3 on Jetson"),
        ("tensorrt-11.4:sm90", INT8, "strongly typed alone"),
        ("tensorrt-11.4:sm90", replace(INT8, opset=18), "4 scales are FP16, which ONNX has from opset 19 on"),
        ("tensorrt-11.4:sm90", None, "not checked: that needs onnx"),
    ],
)
def test_remarks_tell_what_changes_and_what_is_not_known(demo, target, facts, words):
    precision = open_bundle(demo.bundle).manifest.precision
    assert words in " ".join(graph_remarks(precision, target_from_text(target), facts))


def test_a_parser_that_is_too_old_is_not_said_to_read_the_graph(demo):
    precision = open_bundle(demo.bundle).manifest.precision
    assert not graph_remarks(precision, target_from_text("tensorrt-8.5:sm72"), INT8)


@pytest.mark.parametrize(
    ("target", "facts", "words"),
    [
        ("jetpack-6.2", INT8, "DLA: 2 Resize nodes are align-corners"),
        ("jetpack-6.2", GraphFacts(opset=19), "DLA: the graph has no align-corners Resize"),
        ("jetpack-6.2", None, "DLA: whether Resize could run on it was not checked"),
        ("tensorrt-10.7:sm87", INT8, "DLA: 2 Resize nodes are align-corners"),
        ("tensorrt-10.8:sm87", INT8, "DLA: TensorRT 10.7 was the last with DLA on Jetson before 11.4.1"),
        ("tensorrt-11.4:sm87", INT8, "DLA: TensorRT 10.7 was the last"),
        ("tensorrt-11.4.0:sm87", INT8, "DLA: TensorRT 10.7 was the last"),
        ("tensorrt-11.4.1:sm87", INT8, "DLA: 2 Resize nodes are align-corners"),
        ("tensorrt-11.5:sm87", INT8, "DLA: 2 Resize nodes are align-corners"),
    ],
)
def test_dla_leaves_align_corners_to_the_gpu(demo, target, facts, words):
    manifest = open_bundle(demo.bundle).manifest
    assert words in " ".join(judge(manifest, target_from_text(target), facts, "demo.ran")[0].remarks)


@pytest.mark.parametrize("target", ["tensorrt-11.4:sm90", "jetpack-7.0", "jetpack-7.1"])
def test_a_gpu_without_dla_gets_no_word_about_it(demo, target):
    manifest = open_bundle(demo.bundle).manifest
    verdict = judge(manifest, target_from_text(target), INT8, "demo.ran")[0]
    assert not any("DLA" in remark for remark in verdict.remarks)
    assert verdict.command == "ran-build demo.ran --backend tensorrt"


def test_turing_has_to_be_asked_for(demo):
    manifest = open_bundle(demo.bundle).manifest
    verdict = judge(manifest, target_from_text("tensorrt-rtx-1.7:sm75"), INT8, "demo.ran")[0]
    assert verdict.command == "ran-build demo.ran --backend tensorrt-rtx --compute-capability 7.5"


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("jetpack-5.0", None),
        ("jetpack-5.1", "ran-build demo.ran --backend tensorrt --trtexec DIR"),
        ("jetpack-6.0", "ran-build demo.ran --backend tensorrt --trtexec DIR"),
        ("tensorrt-8.6:sm87", "ran-build demo.ran --backend tensorrt --trtexec DIR"),
        ("tensorrt-8.4:sm72", None),
        ("tensorrt-10.5:sm70", None),
    ],
)
def test_where_tensorrt_is_too_old_its_own_trtexec_builds(demo, target, command):
    manifest = open_bundle(demo.bundle).manifest
    verdict = judge(manifest, target_from_text(target), INT8, "demo.ran")[0]
    assert (verdict.verdict, verdict.command) == (Verdict.IMPOSSIBLE, command)


def test_a_bundle_without_the_graph_has_to_be_exported_again(demo):
    manifest = replace(open_bundle(demo.bundle).manifest, dialects={})
    verdict = judge(manifest, target_from_text("openvino-2026.4"), None, "demo.ran")[0]
    assert verdict.verdict is Verdict.IMPOSSIBLE
    assert "--backend openvino" in verdict.command


def test_an_rtx_engine_has_no_place_on_a_jetson(demo):
    manifest = replace(open_bundle(demo.bundle).manifest, engines=(engine("tensorrt-rtx", RTX),))
    target, other = judge(manifest, target_from_text("jetpack-6.2"), INT8, "demo.ran")
    assert (target.backend, target.verdict) == ("tensorrt", Verdict.REBUILD)
    assert (other.backend, other.verdict) == ("tensorrt-rtx", Verdict.IMPOSSIBLE)


def test_a_release_of_software_says_nothing_of_other_engines(demo):
    manifest = replace(open_bundle(demo.bundle).manifest, engines=(engine("tensorrt-rtx", RTX),))
    (verdict,) = judge(manifest, target_from_text("openvino-2026.4"), None, "demo.ran")
    assert verdict.backend == "openvino"
