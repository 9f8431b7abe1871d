from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.runtime import cuda


@pytest.fixture
def gpu():
    try:
        cuda.require_gpu()
    except BackendUnavailableError as exc:
        pytest.skip(str(exc))


def test_a_missing_binding_or_gpu_is_said_in_one_line():
    try:
        cuda.require_gpu()
    except BackendUnavailableError as exc:
        message = str(exc)
    else:
        pytest.skip("a GPU is here")
    assert re.match(r"Cannot import cuda.bindings|No NVIDIA GPU can be used here", message)
    assert "\n" not in message


def test_a_binding_that_is_there_but_fails_is_named_with_its_own_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    cuda._binding.cache_clear()
    with pytest.raises(BackendUnavailableError, match=r"^Cannot import cuda.bindings \(.*cuda.bindings.runtime.*\)\. "):
        cuda.require_gpu()


def test_every_cuda_name_used_exists_in_the_binding():
    binding = pytest.importorskip("cuda.bindings.runtime")
    source = Path(cuda.__file__).read_text(encoding="utf-8")
    functions = re.findall(r'_call\("(\w+)"', source)
    kinds = re.findall(r'"(cudaMemcpy\w+To\w+)"', source)
    assert len(functions) >= 9
    assert [name for name in functions if not hasattr(binding, name)] == []
    assert len(kinds) == 2
    assert [name for name in kinds if not hasattr(binding.cudaMemcpyKind, name)] == []


def test_a_buffer_returns_what_was_uploaded(gpu):
    stream, buffer = cuda.Stream(), cuda.Buffer(1000)
    sent = np.random.default_rng(0).integers(0, 256, 777, dtype=np.uint8)
    received = np.zeros_like(sent)
    buffer.upload(sent, stream)
    buffer.download(received, stream)
    stream.synchronize()
    np.testing.assert_array_equal(received, sent)
    for each in (buffer, stream, buffer, stream):
        each.close()


def test_too_large_a_buffer_is_a_device_error_with_the_call_s_name(gpu):
    with pytest.raises(DeviceError, match="cudaMalloc failed: cudaErrorMemoryAllocation"):
        cuda.Buffer(2**50)


def test_the_device_has_a_name_and_a_capability(gpu):
    device = cuda.current_device()
    assert device.name.isprintable()
    assert re.fullmatch(r"\d+\.\d", device.compute_capability)
    assert device.memory_bytes > 2**28
