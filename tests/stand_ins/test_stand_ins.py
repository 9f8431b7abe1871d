"""The stand-ins see the mistakes that they are there to see; each test makes one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from stand_in_cuda_python import stand_in_runtime
from stand_in_gpu import StandInGpu
from stand_in_libcuda import ERRORS, StandInLibcuda
from stand_in_memory import GpuError, bytes_at
from stand_in_stream import Operation
from stand_in_tensorrt import ILogger, engine_bytes, row_sums, stand_in_tensorrt


@pytest.fixture
def gpu():
    return StandInGpu(delay_s=0.01)


def test_every_name_of_the_runtime_s_stand_in_exists_in_the_binding():
    binding = pytest.importorskip("cuda.bindings.runtime")
    names = [name for name in vars(stand_in_runtime(StandInGpu())) if name.startswith("cuda")]
    assert len(names) > 25
    assert [name for name in names if not hasattr(binding, name)] == []
    for kind in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
        ours, theirs = getattr(stand_in_runtime(StandInGpu()), kind), getattr(binding, kind)
        assert [member.name for member in ours if not hasattr(theirs, member.name)] == []


def test_names_and_errors_of_libcuda_s_stand_in_are_those_of_the_driver_api():
    driver = pytest.importorskip("cuda.bindings.driver")
    names = [name for name in vars(StandInLibcuda) if name.startswith("cu")]
    assert len(names) == 5
    assert [name for name in names if not hasattr(driver, name)] == []
    assert {name: int(getattr(driver.CUresult, f"CUDA_ERROR_{name}")) for name in ERRORS} == ERRORS


def test_what_is_queued_happens_late_and_in_order(gpu):
    stream, host, memory = gpu.create_stream(), gpu.allocate_host(64), gpu.allocate(64)
    back = gpu.allocate_host(64)
    host.data[:] = 7
    gpu.copy_to_device(memory, host.host_address, 64, stream)
    gpu.copy_to_host(back.host_address, memory, 64, stream)
    assert gpu.pending() == 2
    assert not (back.data == 7).any()
    gpu.synchronize(stream)
    assert (back.data == 7).all()
    assert gpu.pending() == 0
    assert gpu.faults == []


def test_page_locked_memory_changed_under_a_copy_is_a_fault(gpu):
    stream, host, memory = gpu.create_stream(), gpu.allocate_host(64), gpu.allocate(64)
    gpu.copy_to_device(memory, host.host_address, 64, stream)
    host.data[:] = 7
    gpu.synchronize(stream)
    assert gpu.faults == ["host memory was changed before the device had read it"]


def test_pageable_memory_is_read_before_the_call_returns(gpu):
    stream, memory, array = gpu.create_stream(), gpu.allocate(64), np.full(64, 5, np.uint8)
    gpu.copy_to_device(memory, array.ctypes.data, 64, stream)
    array[:] = 9
    gpu.copy_to_host(array.ctypes.data, memory, 64, stream)
    assert (array == 5).all()
    assert gpu.calls["pageable copies"] == 2


def test_memory_freed_while_it_is_used_is_a_fault(gpu):
    stream, host, memory = gpu.create_stream(), gpu.allocate_host(64), gpu.allocate(64)
    gpu.copy_to_device(memory, host.host_address, 64, stream)
    gpu.free(memory)
    gpu.synchronize(stream)
    assert gpu.faults == [
        "memory was freed while something that uses it is queued",
        "memory was written after it was freed",
    ]


def test_another_current_device_is_a_fault(gpu):
    stream = gpu.create_stream()
    gpu.device = 1
    gpu.synchronize(stream)
    assert gpu.faults == ["a stream of device 0 was used while device 1 is current"]
    with pytest.raises(GpuError, match="InvalidDevice"):
        gpu.device = 2


def test_the_current_device_is_that_of_the_thread(gpu):
    gpu.device, seen = 1, []
    thread = threading.Thread(target=lambda: seen.append(gpu.device))
    thread.start()
    thread.join()
    assert (gpu.device, seen) == (1, [0])


def test_a_failing_kernel_is_an_error_of_the_stream_for_good(gpu):
    stream = gpu.create_stream()

    def fails():
        raise GpuError("IllegalAddress")

    gpu.enqueue(stream, Operation(fails))
    for _ in range(2):
        with pytest.raises(GpuError, match="IllegalAddress"):
            gpu.synchronize(stream)


def test_device_memory_has_no_address_of_this_process_and_an_end(gpu):
    with pytest.raises(GpuError, match="MemoryAllocation"):
        gpu.allocate(gpu.memory_bytes + 1)
    memory, host = gpu.allocate(16), gpu.allocate_host(16)
    assert memory != host.host_address != host.address
    assert bytes_at(host.host_address, 16).tolist() == [0xAB] * 16
    gpu.fail("free", "InvalidValue")
    for _ in range(2):
        gpu.entered("other")
    with pytest.raises(GpuError, match="InvalidValue"):
        gpu.entered("free")


def test_a_graph_holds_what_was_captured_and_runs_when_it_is_launched(gpu):
    stream, host, memory = gpu.create_stream(), gpu.allocate_host(8), gpu.allocate(8)
    gpu.begin_capture(stream, "ThreadLocal")
    gpu.copy_to_device(memory, host.host_address, 8, stream)
    graph = gpu.end_capture(stream)
    assert gpu.pending() == 0
    executable = gpu.instantiate(graph)
    for value in (3, 4):
        host.data[:] = value
        gpu.launch(executable, stream)
        gpu.synchronize(stream)
        assert (gpu.read(memory, 8) == value).all()


@pytest.mark.parametrize(("mode", "allowed"), [("ThreadLocal", True), ("Global", False)])
def test_a_capture_forbids_allocating_and_in_global_mode_to_every_thread(gpu, mode, allowed):
    stream, outcome = gpu.create_stream(), []
    gpu.begin_capture(stream, mode)

    def allocate():
        try:
            outcome.append(gpu.allocate(8))
        except GpuError as exc:
            outcome.append(str(exc))

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    assert (outcome != ["StreamCaptureUnsupported"]) == allowed
    allocate()
    assert outcome[1] == "StreamCaptureUnsupported"
    with pytest.raises(GpuError, match="StreamCaptureInvalidated"):
        gpu.end_capture(stream)


class Log:
    def __init__(self):
        self.lines = []

    def log(self, severity, text):
        assert severity is ILogger.Severity.ERROR
        self.lines.append(text)


def engine_on(gpu, profiles=((1, 2, 4),)):
    return stand_in_tensorrt(gpu).Runtime(Log()).deserialize_cuda_engine(engine_bytes(list(profiles)))


def ready_context(gpu, engine):
    context = engine.create_execution_context()
    context.set_tensor_address("image", gpu.allocate(4 * 9 * 14 * 3))
    context.set_tensor_address("logits", gpu.allocate(4 * 10 * 4))
    assert context.set_input_shape("image", (2, 9, 14, 3))
    return context


def test_the_engine_sums_rows_exactly():
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 14, 3), dtype=np.uint8)
    weights = np.array([[(i + k) % 7 + 1 for i in range(9 * 14 * 3)] for k in range(10)], float)
    np.testing.assert_array_equal(row_sums(images), images.reshape(3, -1).astype(float) @ weights.T)


def test_an_engine_refuses_what_is_outside_its_profile_and_a_damaged_plan(gpu):
    engine = engine_on(gpu)
    context = engine.create_execution_context()
    assert not context.set_input_shape("image", (5, 9, 14, 3))
    assert not context.set_input_shape("image", (2, 9, 14, 4))
    assert not context.execute_async_v3(gpu.create_stream())
    assert len(engine.logger.lines) == 3
    assert stand_in_tensorrt(gpu).Runtime(Log()).deserialize_cuda_engine(b"plan") is None


def test_one_context_on_two_streams_at_once_is_a_fault(gpu):
    context, streams = ready_context(gpu, engine_on(gpu)), [gpu.create_stream(), gpu.create_stream()]
    for stream in streams:
        assert context.execute_async_v3(stream)
    for stream in streams:
        gpu.synchronize(stream)
    assert gpu.faults == ["two streams use the activation memory of one context at once"]


def test_a_context_is_captured_only_after_it_ran_with_that_shape(gpu):
    context, stream = ready_context(gpu, engine_on(gpu)), gpu.create_stream()
    gpu.begin_capture(stream, "ThreadLocal")
    assert not context.execute_async_v3(stream)
    with pytest.raises(GpuError, match="StreamCaptureInvalidated"):
        gpu.end_capture(stream)
    assert context.execute_async_v3(stream)
    gpu.synchronize(stream)
    gpu.begin_capture(stream, "ThreadLocal")
    assert context.execute_async_v3(stream)
    assert gpu.end_capture(stream)


def test_an_engine_used_on_another_device_is_a_fault(gpu):
    engine = engine_on(gpu)
    gpu.device = 1
    engine.create_execution_context()
    assert gpu.faults == ["a context was created on device 1; the engine is on device 0"]
