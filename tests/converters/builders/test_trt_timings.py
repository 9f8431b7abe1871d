"""The calls of TensorRT's timing cache, made on TensorRT-RTX: they are the same, and there they do nothing.

What the timings gain is for benchmarks/gpu_check.py on a GPU.
"""

from __future__ import annotations

import pytest

from ran_deploy.converters.builders import open_builder
from ran_deploy.converters.builders.trt import TensorRtBuilder
from ran_deploy.errors import BackendUnavailableError

pytestmark = pytest.mark.filterwarnings("ignore:.*Deprecated in TensorRT-RTX 1.2:DeprecationWarning")


class TimedRtxBuilder(TensorRtBuilder):
    """TensorRT's builder with TensorRT-RTX's library."""

    package = "tensorrt_rtx"


@pytest.fixture
def builder():
    try:
        return TimedRtxBuilder()
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


def test_a_cache_that_the_vendor_cannot_read_still_gives_one_to_build_with(builder):
    for timings in (b"", b"no timings"):
        config = builder._builder.create_builder_config()
        cache = builder._timing_cache(config, timings)
        assert isinstance(cache, builder._trt.ITimingCache)
        assert config.get_timing_cache() is not None


def test_timings_of_two_processes_are_merged_into_one_serialized_cache(builder):
    config = builder._builder.create_builder_config()
    other = bytes(config.create_timing_cache(b"").serialize())
    assert other
    builder.timings = b""
    builder.merge_timings(other)
    assert len(builder.timings) == len(other)
    builder.merge_timings(b"")
    assert len(builder.timings) == len(other)


def test_tensorrt_rtx_is_given_no_timings():
    try:
        assert open_builder("tensorrt-rtx").timings is None
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))
