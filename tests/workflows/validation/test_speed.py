from __future__ import annotations

from ran_deploy.bundle import open_bundle
from ran_deploy.runtime.timing import LEAST_RUNS
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.validation.speed import engine_sizes, engine_speeds


def test_engines_of_a_bundle_have_speeds_beside_fp32_and_sizes(demo):
    bundle = open_bundle(demo.bundle)
    images = read_golden(bundle).inputs[:2]
    speeds = engine_speeds(bundle, ["onnxruntime", "openvino"], images, cache_dir=demo.cache, seconds=0)
    assert [(speed.backend, speed.batch) for speed in speeds] == [
        ("onnxruntime", 1), ("onnxruntime", 8), ("openvino", 1), ("openvino", 8)
    ]  # fmt: skip
    for speed in speeds:
        assert speed.runs == LEAST_RUNS
        assert speed.median_ms > 0
        assert speed.fp32_median_ms > 0
        assert speed.fp32_ratio > 0
    for size in engine_sizes(bundle, ["onnxruntime", "openvino"], demo.cache):
        assert size.graph_bytes == (bundle.path / "graphs" / f"{size.backend}.onnx").stat().st_size
        assert size.reference_bytes == (bundle.path / "reference.onnx").stat().st_size
        assert size.engine_bytes > 1e6
