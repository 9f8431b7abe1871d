"""Every TensorRT name that the sources use, against TensorRT-RTX as installed and against 10.3 and 11.4 as listed.

tests/vendor_facts/make_tensorrt_names.py made the lists from NVIDIA's own bindings.
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest

from ran_deploy import vendors
from ran_deploy.converters.builders import trt as builder
from ran_deploy.converters.builders import trt_dla as dla
from ran_deploy.converters.builders import trt_inspector as inspection
from ran_deploy.engine import refit
from ran_deploy.runtime.backends import trt_call, trt_dla, trt_engine, trt_profiles, trt_slot
from ran_deploy.runtime.profiles import trt as trt_profiler

LISTED = json.loads((Path(__file__).parent / "vendor_facts" / "tensorrt_names.json").read_text())
# Variables and attributes of the sources that hold TensorRT's objects; the module itself is "".
OWNERS = {
    builder: {
        "trt": "",
        "_trt": "",
        "_builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "cache": "ITimingCache",
        "profile": "IOptimizationProfile",
        "parser": "OnnxParser",
        "tensor": "ITensor",
    },
    dla: {
        "trt": "",
        "builder": "Builder",
        "config": "IBuilderConfig",
        "network": "INetworkDefinition",
        "tensor": "ITensor",
    },
    inspection: {
        "trt": "",
        "runtime": "Runtime",
        "loaded": "ICudaEngine",
        "context": "IExecutionContext",
        "inspector": "EngineInspector",
    },
    trt_dla: {"trt": "", "runtime": "Runtime"},
    trt_call: {"context": "IExecutionContext", "_context": "IExecutionContext"},
    trt_engine: {
        "_trt": "",
        "context": "IExecutionContext",
        "_engine": "ICudaEngine",
        "_runtime": "Runtime",
        "config": "IRuntimeConfig",
        "_kernels": "IRuntimeCache",
        "strategies": "CudaGraphStrategy",
    },
    trt_profiles: {"engine": "ICudaEngine"},
    trt_profiler: {"trt": ""},
    trt_slot: {"context": "IExecutionContext"},
    refit: {"trt": "", "refitter": "Refitter", "parser": "OnnxParserRefitter"},
    vendors: {"trt": "", "levels": "ILogger.Severity", "error": "ParserError"},
}
RTX_ONLY = {  # asked of TensorRT-RTX alone, and missing from one of the others at least
    ("", "ComputeCapability"),
    ("", "CudaGraphStrategy"),
    ("CudaGraphStrategy", "DISABLED"),
    ("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE"),
    ("ICudaEngine", "create_runtime_config"),
    ("IRuntimeCache", "deserialize"),
    ("IRuntimeCache", "serialize"),
    ("IRuntimeConfig", "create_runtime_cache"),
    ("IRuntimeConfig", "cuda_graph_strategy"),
    ("IRuntimeConfig", "set_execution_context_allocation_strategy"),
    ("IRuntimeConfig", "set_runtime_cache"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
}


def names_used(module) -> set[tuple[str, str]]:
    """Return (class, name) pairs; trt.MemoryPoolType.WORKSPACE is a member of that class of the module."""
    owners, found = OWNERS[module], set()

    def owner_of(node) -> str | None:
        label = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        if isinstance(node, ast.Attribute) and owner_of(node.value) == "" and node.attr[0].isupper():
            return node.attr  # a class of the module
        return owners.get(label) if not isinstance(node, ast.Call) else None

    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            owner = owner_of(node.value)
            found |= set() if owner is None else {(owner, node.attr)}
    return found


USED = sorted({pair for module in OWNERS for pair in names_used(module)})


def test_the_names_are_found_in_the_sources():
    assert {("", "Builder"), ("IBuilderConfig", "progress_monitor"), ("MemoryPoolType", "WORKSPACE")} <= set(USED)
    assert {("IExecutionContext", "execute_async_v3"), ("TensorIOMode", "INPUT"), ("", "ILogger")} <= set(USED)
    assert {("EngineInspector", "execution_context"), ("LayerInformationFormat", "JSON")} <= set(USED)
    assert {("IExecutionContext", "set_device_memory"), ("ICudaEngine", "num_optimization_profiles")} <= set(USED)
    assert ("ExecutionContextAllocationStrategy", "USER_MANAGED") in USED
    assert {("OnnxParserRefitter", "refit_from_bytes"), ("BuilderFlag", "STRIP_PLAN"), ("ParserError", "desc")} <= set(
        USED
    )
    assert {("Runtime", "DLA_core"), ("Runtime", "num_DLA_cores"), ("Builder", "num_DLA_cores")} <= set(USED)
    assert {
        ("", "IProfiler"),
        ("IExecutionContext", "profiler"),
        ("IExecutionContext", "enqueue_emits_profile"),
    } <= set(USED)
    assert len(USED) > 45


@pytest.mark.parametrize(("owner", "name"), USED)
def test_the_installed_tensorrt_rtx_has_it(owner, name):
    holder = pytest.importorskip("tensorrt_rtx")
    for part in owner.split(".") if owner else ():
        holder = getattr(holder, part)
    assert hasattr(holder, name)


@pytest.mark.parametrize("version", LISTED)
@pytest.mark.parametrize(("owner", "name"), USED)
def test_tensorrt_has_it_but_for_what_only_rtx_is_asked_for(version, owner, name):
    table = LISTED[version]
    names = table["module"] if owner == "" else table["classes"].get(owner, ())
    assert name in names or (owner, name) in RTX_ONLY


def test_what_only_rtx_is_asked_for_is_used_and_not_in_every_tensorrt():
    def everywhere(owner: str, name: str) -> bool:
        return all(name in (t["module"] if owner == "" else t["classes"].get(owner, ())) for t in LISTED.values())

    assert set(USED) >= RTX_ONLY
    assert [pair for pair in RTX_ONLY if everywhere(*pair)] == []


def test_the_lists_are_of_both_generations():
    assert "FP16" in LISTED["10.3.0"]["classes"]["BuilderFlag"]
    assert "FP16" not in LISTED["11.4.0.106"]["classes"]["BuilderFlag"]  # strongly typed alone


def test_hardware_levels_are_named_as_tensorrt_names_them():
    old, new = (set(table["classes"]["HardwareCompatibilityLevel"]) for table in LISTED.values())
    assert set(builder.HARDWARE_LEVELS.values()) - old == {"SAME_COMPUTE_CAPABILITY"}
    assert set(builder.HARDWARE_LEVELS.values()) <= new


def test_what_a_profiler_is_told_of_layers_by_is_named_as_tensorrt_names_it():
    assert [table["classes"]["IProfiler"] for table in LISTED.values()] == [["report_layer_time"]] * len(LISTED)
