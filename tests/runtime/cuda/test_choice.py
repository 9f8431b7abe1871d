"""Which binding is taken, what is said where there is none, and whether the bindings have the names we use."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.cuda import cuda_python, pycuda_driver
from ran_deploy.runtime.cuda.binding import binding

PYCUDA = json.loads((Path(__file__).parents[2] / "vendor_facts" / "pycuda_names.json").read_text())


def test_cuda_python_is_taken_first_and_pycuda_where_it_is_what_there_is(stand_in):
    stand_in(api="cuda-python")
    assert type(binding()).__name__ == "CudaPython"
    stand_in(api="pycuda")
    assert type(binding()).__name__ == "PyCuda"


def test_a_missing_binding_or_gpu_is_said_in_one_line():
    try:
        cuda.require_gpu()
    except BackendUnavailableError as exc:
        message = str(exc)
    else:
        pytest.skip("a GPU is here")
    assert re.match(r"Cannot import cuda.bindings|No NVIDIA GPU can be used here", message)
    assert "\n" not in message


@pytest.mark.parametrize("api", ["cuda-python", "pycuda"])
def test_a_machine_without_a_gpu_is_said(stand_in, api):
    stand_in(api=api, count=0)
    with pytest.raises(BackendUnavailableError, match=r"^No NVIDIA GPU can be used here: .* If .*nvidia-smi .*\.$"):
        cuda.require_gpu()


def test_a_driver_that_fails_is_said_with_what_to_do(stand_in):
    stand_in().fail("cudaGetDeviceCount", "InsufficientDriver")
    with pytest.raises(
        BackendUnavailableError,
        match=r"cudaErrorInsufficientDriver .*\. If there is one, install or update its driver;",
    ):
        cuda.require_gpu()


def test_bindings_that_are_there_but_fail_are_named_each_with_its_own_reason(monkeypatch):
    for name in ("cuda.bindings.runtime", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    binding.cache_clear()
    with pytest.raises(
        BackendUnavailableError,
        match=r"^Cannot import cuda.bindings \(.*cuda.bindings.runtime.*\) or pycuda \(.*pycuda.*\)\. It needs",
    ):
        cuda.require_gpu()


def test_every_name_of_cuda_python_that_is_used_exists_in_the_binding():
    runtime, driver = (pytest.importorskip(f"cuda.bindings.{name}") for name in ("runtime", "driver"))
    source = inspect.getsource(cuda_python)
    called = re.findall(r'_call\("(\w+)"', source)
    constants = re.findall(r"self\._runtime\.(\w+)", source)
    members = re.findall(r"self\._runtime\.(\w+)\.(\w+)", source)
    assert len(called) >= 18
    assert len(constants) >= 4
    assert [name for name in (*called, *constants) if not hasattr(runtime, name)] == []
    assert [pair for pair in members if not hasattr(getattr(runtime, pair[0]), pair[1])] == []
    assert [name for name in re.findall(r"self\._driver\.(\w+)", source) if not hasattr(driver, name)] == []


def test_every_name_of_pycuda_that_is_used_exists_in_it():
    owners = {
        "Device": {"device"},
        "Context": {"context"},
        "Stream": {"stream"},
        "DeviceAllocation": {"memory"},
        "PagelockedHostAllocation": {"base"},
    }
    owner_of = {variable: name for name, variables in owners.items() for variable in variables}
    used = set()
    for node in ast.walk(ast.parse(inspect.getsource(pycuda_driver))):
        if isinstance(node, ast.Attribute):
            value = node.value.func if isinstance(node.value, ast.Call) else node.value
            holder = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", None)
            if holder == "_cuda":
                used.add(("", node.attr))
            elif holder in PYCUDA["classes"] or holder in owner_of:
                used.add((owner_of.get(holder, holder), node.attr))
    assert {("", "Stream"), ("Context", "pop"), ("Device", "retain_primary_context")} <= used
    assert {("device_attribute", "INTEGRATED"), ("PagelockedHostAllocation", "get_device_pointer")} <= used
    tables = {"": PYCUDA["module"], **PYCUDA["classes"]}
    assert [pair for pair in sorted(used) if pair[1] not in tables[pair[0]]] == []


def test_the_stand_in_for_pycuda_offers_nothing_that_pycuda_has_not(make_gpu):
    from stand_in_pycuda import stand_in_pycuda

    module = stand_in_pycuda(make_gpu())
    names = [name for name in vars(module) if not name.startswith("__")]
    assert len(names) > 12
    assert [name for name in names if name not in PYCUDA["module"]] == []
    for kind in ("Context", "Device", "Stream", "DeviceAllocation", "PagelockedHostAllocation"):
        own = [name for name in vars(getattr(module, kind)) if not name.startswith("_")]
        assert [name for name in own if name not in PYCUDA["classes"][kind]] == []


def test_the_binding_takes_the_arguments_we_give_it():
    """Without a driver each call fails in CUDA, hence after the binding has taken number and kinds of its arguments."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    status, count = runtime.cudaGetDeviceCount()
    if status == runtime.cudaError_t.cudaSuccess and count:
        pytest.skip("with a GPU, made-up handles are dangerous")
    api, array = cuda_python.CudaPython(), np.zeros(8, np.uint8)
    stream, graph = runtime.cudaStream_t(), runtime.cudaGraphExec_t()
    calls = [
        api.device_count,
        lambda: api.device(0),
        api.current_index,
        lambda: api._call("cudaSetDevice", 1),
        api.free_and_total_bytes,
        api.create_stream,
        lambda: api.synchronize(stream),
        lambda: api.destroy_stream(stream),
        lambda: api.allocate(8),
        lambda: api.free(0x1000),
        lambda: api.allocate_host(8),
        lambda: api._call("cudaHostGetDevicePointer", 0x1000, 0),
        lambda: api.free_host(0x1000),
        lambda: api.copy_to_device(0x1000, array, stream),
        lambda: api.copy_to_host(array, 0x1000, stream),
        lambda: api.begin_capture(stream),
        lambda: api.end_capture(stream),
        lambda: api._call("cudaGraphInstantiate", runtime.cudaGraph_t(), 0),
        lambda: api._call("cudaGraphDestroy", runtime.cudaGraph_t()),
        lambda: api.launch(graph, stream),
        lambda: api.destroy_graph(graph),
    ]
    for call in calls:
        with pytest.raises(DeviceError, match=r"^cuda\w+ failed: "):
            call()
    assert api.stream_handle(runtime.cudaStream_t(0x10)) == 0x10
