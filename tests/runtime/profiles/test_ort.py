"""ONNX Runtime's profile: what is read of its file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ran_deploy.errors import EngineMismatchError, OutputError
from ran_deploy.runtime.profiles import Workload
from ran_deploy.runtime.profiles.ort import layers_from_events, profile


def event(name: str, microseconds: int, *, index: str = "0", cat: str = "Node", **arguments) -> dict:
    """Return an event as ONNX Runtime 1.32 writes it, but for what is not read."""
    return {
        "cat": cat,
        "pid": 1,
        "dur": microseconds,
        "ts": 0,
        "name": name,
        "args": {"node_index": index, **arguments},
    }


def test_the_median_of_the_last_runs_counts():
    conv = {"op_name": "QLinearConv", "input_type_shape": [{"uint8": [1, 3, 8, 8]}, {"float": []}]}
    events = [
        event("session_initialization", 5000, cat="Session"),
        *(event("node_Conv_3_token_28_kernel_time", each, index="4", **conv) for each in (900, 30, 10, 20)),
        event("node_Conv_3_token_28_fence_before", 7, index="4"),
        *(event("relu_2_nchwc_kernel_time", 4, index="9", op_name="Conv") for _ in range(4)),
        *(event("getitem_3_bn_nchwc_kernel_time", 4, index="10", op_name="Conv") for _ in range(4)),
        *(event("ReorderOutput_kernel_time", 2, index="11", op_name="ReorderOutput") for _ in range(4)),
    ]
    convolution, relu, norm, reorder = layers_from_events(json.dumps(events).encode(), runs=3)
    assert (convolution.ms, convolution.kind, convolution.execution) == (0.02, "QLinearConv", "uint8")
    assert (convolution.name, convolution.origins) == ("node_Conv_3_token_28", ("node_Conv_3",))
    assert (relu.origins, norm.origins) == (("relu_2",), ("getitem_3",))
    assert [layer.converts for layer in (convolution, relu, norm, reorder)] == [False, False, False, True]


def test_nodes_of_one_name_are_layers_of_their_own():
    events = [event("_kernel_time", 10 * index, index=str(index), op_name="Relu") for index in range(3)]
    assert [layer.ms for layer in layers_from_events(json.dumps(events).encode(), runs=1)] == [0.0, 0.01, 0.02]


def test_a_profile_that_a_full_disk_cut_short_says_what_to_do():
    text = json.dumps([event("conv_kernel_time", 10, op_name="Conv")]).encode()
    with pytest.raises(OutputError, match=r"profile ends after 50 bytes \(.*\)\. Make room for some megabytes in /"):
        layers_from_events(text[:50], runs=1)


def test_what_is_no_engine_is_refused():
    pytest.importorskip("onnxruntime")
    with pytest.raises(EngineMismatchError, match="cannot load this engine"):
        profile(Workload(engine=b"no engine", feeds={"image": np.zeros((1, 2, 2, 3), np.uint8)}, runs=1, warm_up=0))
