"""Model repositories for Triton, their configuration parsed as Triton parses it, by its published schema."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from ran_deploy.bundle import open_bundle
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import AttentionRecord, BatchProfile
from ran_deploy.workflows.triton import best_served, model_config, model_name, write_triton_model

SCHEMA = (
    Path(__file__).parents[1] / "vendor_facts" / "triton_model_config.binpb"
)  # tritonclient 2.73.0's model_config.proto
PROFILE = BatchProfile(minimum=1, optimum=4, maximum=16)


def parsed(text):
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(SCHEMA.read_bytes()))
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
    return text_format.Parse(text, message)


@pytest.fixture(scope="module")
def bundle(demo):
    return open_bundle(demo.bundle)


@pytest.mark.parametrize(
    ("backend", "platform", "named", "kind"),
    [
        ("tensorrt", "tensorrt_plan", "", "KIND_GPU"),
        ("onnxruntime", "onnxruntime_onnx", "", "KIND_CPU"),
        ("openvino", "", "openvino", "KIND_CPU"),
    ],
)
def test_the_configuration_follows_the_published_schema(backend, platform, named, kind, bundle):
    config = parsed(model_config(bundle.manifest, backend, PROFILE))
    assert (config.name, config.platform, config.backend, config.max_batch_size) == ("demo", platform, named, 16)
    assert [(i.name, list(i.dims)) for i in config.input] == [("image", [32, 32, 3])]
    assert [(o.name, list(o.dims), o.label_filename) for o in config.output] == [("logits", [10], "labels.txt")]
    assert "TYPE_UINT8" in str(config.input[0])
    assert "TYPE_FP32" in str(config.output[0])
    assert kind in str(config.instance_group[0])
    assert config.HasField("dynamic_batching")
    assert list(config.dynamic_batching.preferred_batch_size) == ([4] if backend == "tensorrt" else [])
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 4, 16]
    assert list(config.model_warmup[0].inputs["image"].dims) == [32, 32, 3]
    assert config.model_warmup[0].inputs["image"].random_data


def test_masks_are_outputs_too(bundle):
    mask = AttentionRecord(name="stage1.module1", module="stages.0.1", height=16, width=8)
    config = parsed(model_config(replace(bundle.manifest, attention=(mask,)), "onnxruntime", PROFILE))
    assert [(o.name, list(o.dims)) for o in config.output] == [("logits", [10]), (mask.output, [16, 8])]


def test_what_the_schema_does_not_have_would_be_noticed():
    with pytest.raises(text_format.ParseError):
        parsed('name: "x"\nmax_batch: 4\n')


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sorter", "sorter"),
        ("Äpfel & Birnen v1.2", "_pfel_Birnen_v1.2"),
        ("../..", "_"),
        ('a"b\\c', "a_b_c"),
        ("...", "model"),
    ],
)
def test_names_are_fit_for_paths_and_urls(name, expected):
    assert model_name(name) == expected


def test_versions_count_up_beside_one_configuration(bundle, demo, tmp_path):
    first = write_triton_model(bundle, "onnxruntime", tmp_path, cache_dir=demo.cache)
    second = write_triton_model(bundle, "onnxruntime", tmp_path, cache_dir=demo.cache)
    assert (first, second) == (tmp_path / "demo" / "1", tmp_path / "demo" / "2")
    graph = bundle.read("graphs/onnxruntime.onnx")
    assert (first / "model.onnx").read_bytes() == (second / "model.onnx").read_bytes() == graph
    assert (tmp_path / "demo" / "labels.txt").read_text().splitlines() == list(bundle.manifest.labels)
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["1", "2", "config.pbtxt", "labels.txt"]


def test_a_model_that_is_configured_otherwise_is_not_touched(bundle, demo, tmp_path):
    write_triton_model(bundle, "onnxruntime", tmp_path, cache_dir=demo.cache)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=r"config.pbtxt is of another model"):
        write_triton_model(bundle, "openvino", tmp_path, cache_dir=demo.cache)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_line_breaks_in_labels_do_not_shift_the_classes(bundle, demo, tmp_path):
    labels = ("first\nline", *bundle.manifest.labels[1:])
    bundle.manifest, kept = replace(bundle.manifest, labels=labels), bundle.manifest
    try:
        folder = write_triton_model(bundle, "onnxruntime", tmp_path, cache_dir=demo.cache).parent
    finally:
        bundle.manifest = kept
    assert (folder / "labels.txt").read_text().splitlines() == ["first line", *labels[1:]]


def test_what_triton_cannot_serve_is_refused():
    assert best_served(["openvino", "tensorrt-rtx", "onnxruntime"]) == "onnxruntime"
    with pytest.raises(ConfigError, match=r"^Triton serves engines of tensorrt, onnxruntime, openvino; there is"):
        best_served(["tensorrt-rtx"])
