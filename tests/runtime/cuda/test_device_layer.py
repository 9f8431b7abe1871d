"""The device layer over either binding: on the stand-in everywhere, and on a GPU with what is installed there."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.cuda.binding import BINDINGS, binding

APIS = ["cuda-python", "pycuda"]


@pytest.fixture(params=[*APIS, *(f"installed {package}" for package in BINDINGS)])
def device(request, monkeypatch):
    """One of the bindings with device 0 current; for the stand-ins their GPU."""
    if request.param in APIS:
        found = request.getfixturevalue("stand_in")(api=request.param)
    else:
        package = request.param.removeprefix("installed ")
        monkeypatch.setattr("ran_deploy.runtime.cuda.binding.BINDINGS", {package: BINDINGS[package]})
        binding.cache_clear()
        try:
            cuda.require_gpu()
        except BackendUnavailableError as exc:
            binding.cache_clear()
            pytest.skip(str(exc))
        found = None
    with cuda.on_device(0):
        yield found
    binding.cache_clear()


@pytest.fixture
def owned():
    """What a test makes, closed after it."""
    objects = []
    yield objects
    cuda.release(objects)


def random_bytes(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8)


def filled(owned: list, content: np.ndarray) -> cuda.HostMemory:
    memory = cuda.HostMemory(content.nbytes)
    owned.append(memory)
    memory.view(content.shape, content.dtype.name)[:] = content
    return memory


def test_device_memory_returns_what_was_uploaded(device, owned):
    stream, memory = cuda.Stream(), cuda.DeviceMemory(1000)
    owned += [stream, memory]
    sent, received = filled(owned, random_bytes(777)), filled(owned, np.zeros(777, np.uint8))
    stream.upload(sent.array, memory.address)
    stream.download(memory.address, received.array)
    stream.synchronize()
    np.testing.assert_array_equal(received.array, random_bytes(777))
    assert stream.handle != 0  # the default stream, which others use too


def test_two_streams_and_threads_keep_apart(device, owned):
    def echo(seed: int) -> None:
        with cuda.on_device(0):
            mine = []
            stream, memory = cuda.Stream(), cuda.DeviceMemory(5000)
            mine += [stream, memory]
            sent, received = filled(mine, np.full(5000, seed, np.uint8)), filled(mine, np.zeros(5000, np.uint8))
            for _ in range(5):
                stream.upload(sent.array, memory.address)
                stream.download(memory.address, received.array)
                stream.synchronize()
                right.append(bool((received.array == seed).all()))
            cuda.release(mine)

    right: list[bool] = []
    threads = [threading.Thread(target=echo, args=(seed,)) for seed in (3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 15


def test_views_have_the_type_and_shape_asked_for(device, owned):
    memory = filled(owned, np.arange(12, dtype=np.float32).reshape(3, 4))
    np.testing.assert_array_equal(memory.view((2, 4), "float32"), [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert memory.address != 0


def test_closing_twice_is_harmless(device):
    for each in (cuda.DeviceMemory(10), cuda.HostMemory(10), cuda.Stream(), cuda.DeviceMemory(0)):
        each.close()
        each.close()


def test_too_large_memory_is_a_device_error_with_the_call_s_name(device):
    with pytest.raises(
        DeviceError, match=r"^(cudaMalloc failed: cudaErrorMemoryAllocation|cuMemAlloc failed: )"
    ) as error:
        cuda.DeviceMemory(2**50)
    assert "\n" not in str(error.value)


def test_the_device_has_a_name_and_a_capability_and_memory_in_use(device, owned):
    found = cuda.current_device()
    assert found.name.isprintable()
    assert re.fullmatch(r"\d+\.\d", found.compute_capability)
    assert re.fullmatch(r"\d+\.\d", found.driver)
    assert found.memory_bytes > 2**25
    before = cuda.used_bytes()
    owned.append(cuda.DeviceMemory(2**24))
    if device is not None:  # others use a real GPU meanwhile
        assert cuda.used_bytes() == before + 2**24


def test_a_capture_runs_nothing_until_it_is_launched_or_says_that_it_cannot(device, owned):
    stream, memory = cuda.Stream(), cuda.DeviceMemory(64)
    owned += [stream, memory]
    sent, received = filled(owned, np.zeros(64, np.uint8)), filled(owned, np.zeros(64, np.uint8))
    try:
        with stream.captured() as graphs:
            stream.upload(sent.array, memory.address)
            stream.download(memory.address, received.array)
    except DeviceError as exc:
        assert "pycuda cannot capture" in str(exc)  # noqa: PT017  it does on the other
        return
    owned += graphs
    for value in (7, 8):
        sent.array[:] = value
        stream.launch(graphs[0])
        stream.synchronize()
        assert (received.array == value).all()


def test_while_one_thread_captures_another_one_allocates(stand_in, owned):
    stand_in()
    with cuda.on_device(0):
        stream, memory, sent = cuda.Stream(), cuda.DeviceMemory(64), filled(owned, random_bytes(64))
        owned += [stream, memory]
        with stream.captured() as graphs:
            stream.upload(sent.array, memory.address)
            with ThreadPoolExecutor(1) as pool:
                owned.append(pool.submit(cuda.DeviceMemory, 64).result())
        owned += graphs
    assert len(graphs) == 1


def test_an_error_within_a_capture_leaves_a_stream_that_works(device, owned):
    stream, memory = cuda.Stream(), cuda.DeviceMemory(64)
    owned += [stream, memory]
    sent, received = filled(owned, random_bytes(64)), filled(owned, np.zeros(64, np.uint8))
    with pytest.raises(DeviceError), stream.captured():
        raise DeviceError("refused")
    stream.upload(sent.array, memory.address)
    stream.download(memory.address, received.array)
    stream.synchronize()
    np.testing.assert_array_equal(received.array, random_bytes(64))


def test_a_gpu_that_is_not_there_is_said_with_those_that_are(device):
    with pytest.raises(BackendUnavailableError, match=r"^There is no GPU cuda:99; this machine has cuda:0 \(.+\)"):
        cuda.require_gpu(99)
    with pytest.raises(DeviceError), cuda.on_device(99):
        pass


@pytest.mark.parametrize("api", APIS)
def test_the_thread_s_own_device_comes_back_and_no_other_gets_a_context(stand_in, api):
    gpu = stand_in(api=api)
    assert cuda.current_index() == 0
    with cuda.on_device(1):
        assert cuda.current_index() == 1
    assert 0 not in gpu.used_devices  # a context takes memory on a GPU that may be somebody else's
    with cuda.on_device(0):
        with cuda.on_device(1), pytest.raises(KeyError):
            raise KeyError
        with cuda.on_device(1):
            pass
        assert cuda.current_index() == 0
    if api == "pycuda":
        assert gpu.local.stack == []


@pytest.mark.parametrize("api", APIS)
def test_memory_that_cannot_be_mapped_is_not_kept(stand_in, api):
    gpu = stand_in(api=api)
    gpu.fail("cudaHostGetDevicePointer" if api == "cuda-python" else "cuMemHostGetDevicePointer", "NotSupported")
    with cuda.on_device(0), pytest.raises(DeviceError):
        cuda.HostMemory(64)
    assert gpu.live() == {}
