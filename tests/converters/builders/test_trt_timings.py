"""The calls of TensorRT's timing cache, made on TensorRT-RTX: they are the same, and there they do nothing.

What the timings gain is for benchmarks/gpu_check.py on a GPU.
"""

from __future__ import annotations

import pytest

from ran_deploy.converters.builders import open_builder
from ran_deploy.errors import BackendUnavailableError

pytestmark = pytest.mark.filterwarnings("ignore:.*Deprecated in TensorRT-RTX 1.2:DeprecationWarning")


def test_a_cache_that_the_vendor_cannot_read_still_gives_one_to_build_with(tensorrt_builder):
    for timings in (b"", b"no timings"):
        config = tensorrt_builder._builder.create_builder_config()
        cache = tensorrt_builder._timing_cache(config, timings)
        assert isinstance(cache, tensorrt_builder._trt.ITimingCache)
        assert config.get_timing_cache() is not None


def test_timings_of_two_processes_are_merged_into_one_serialized_cache(tensorrt_builder):
    config = tensorrt_builder._builder.create_builder_config()
    other = bytes(config.create_timing_cache(b"").serialize())
    assert other
    tensorrt_builder.timings = b""
    tensorrt_builder.merge_timings(other)
    assert len(tensorrt_builder.timings) == len(other)
    tensorrt_builder.merge_timings(b"")
    assert len(tensorrt_builder.timings) == len(other)


def test_tensorrt_rtx_is_given_no_timings():
    try:
        assert open_builder("tensorrt-rtx").timings is None
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))
