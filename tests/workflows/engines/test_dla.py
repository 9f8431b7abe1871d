from __future__ import annotations

import onnx
import pytest

from ran_deploy.bundle import open_bundle
from ran_deploy.converters.builders import GpuOptions
from ran_deploy.converters.graph import model_from_bytes
from ran_deploy.converters.graph_facts import align_corners_resizes
from ran_deploy.workflows.engines.dla import half_pixel_graph
from ran_deploy.workflows.engines.loading import engine_graph

HALF_PIXEL = GpuOptions(dla_core=0, half_pixel=True)


def test_a_build_with_half_pixels_reads_a_graph_without_aligned_corners(demo):
    bundle = open_bundle(demo.bundle)
    recorded = engine_graph(bundle, "tensorrt", GpuOptions())
    assert align_corners_resizes(model_from_bytes(recorded))
    rewritten = engine_graph(bundle, "tensorrt", HALF_PIXEL)
    assert rewritten == half_pixel_graph(recorded)
    assert align_corners_resizes(model_from_bytes(rewritten)) == []
    onnx.checker.check_model(onnx.load_from_string(rewritten), full_check=True)


def test_a_graph_with_half_pixels_is_taken_by_nvidias_parser_and_builder(demo):
    pytest.importorskip("tensorrt_rtx")
    from ran_deploy.converters.builders import BuildOptions, open_builder

    bundle = open_bundle(demo.bundle)
    graph = engine_graph(bundle, "tensorrt", HALF_PIXEL)
    options = BuildOptions(precision=bundle.manifest.precision, batch=bundle.manifest.batch)
    assert len(open_builder("tensorrt-rtx").build(graph, options)) > 10_000
