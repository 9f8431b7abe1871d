"""OpenVINO's profile: what its averages say of the runs that count."""

from __future__ import annotations

import numpy as np
import pytest

from ran_deploy.errors import EngineMismatchError
from ran_deploy.runtime.profiles import Workload, ov
from ran_deploy.runtime.profiles.layer_time import LayerTime
from ran_deploy.runtime.profiles.ov import layer_time, profile
from ran_deploy.runtime.timing import Timing


class Value:
    def __init__(self, value: str) -> None:
        self.value = value


class Node:
    """A node of OpenVINO's compiled graph, as far as it is asked."""

    def get_friendly_name(self) -> str:
        return "node_Conv_1"

    def get_rt_info(self) -> dict[str, Value]:
        facts = {"layerType": "Convolution", "originalLayersNames": "node_Conv_1,relu", "primitiveType": "brgconv_I8"}
        return {key: Value(value) for key, value in facts.items()}


def test_warm_up_is_taken_out_of_the_average_of_all_runs():
    # 2 runs of 500 us, then 8 of 100 us: 180 us on average
    layer = layer_time(Node(), {"node_Conv_1": 500.0}, {"node_Conv_1": 180.0}, 2, 8)
    assert layer.ms == pytest.approx(0.1)
    assert (layer.kind, layer.execution, layer.origins) == ("Convolution", "brgconv_I8", ("node_Conv_1", "relu"))


def test_averages_rounded_down_never_make_a_negative_time():
    assert layer_time(Node(), {"node_Conv_1": 2.0}, {"node_Conv_1": 0.0}, 5, 10).ms == 0.0
    assert layer_time(Node(), {}, {}, 0, 10).ms == 0.0


def test_a_moment_of_other_load_does_not_count(monkeypatch):
    means = iter([0.4, 9.0, 0.5, 0.6, 0.5])
    asked = []

    def average(workload):
        asked.append(workload.runs)
        return [LayerTime(name="a", kind="k", execution="", origins=(), converts=False, ms=next(means))], Timing(
            (1.0,) * workload.runs
        )

    monkeypatch.setattr(ov, "average", average)
    found = ov.profile(Workload(engine=b"engine", feeds={}, runs=13, warm_up=2))
    assert [layer.ms for layer in found.layers] == [0.5]
    assert (asked, len(found.timing.durations_ms)) == ([3, 3, 3, 2, 2], 13)
    means, asked[:] = iter([0.25, 0.75]), []
    assert [layer.ms for layer in ov.profile(Workload(engine=b"engine", feeds={}, runs=2, warm_up=0)).layers] == [0.5]
    assert asked == [1, 1]


def test_what_is_no_engine_is_refused():
    pytest.importorskip("openvino")
    with pytest.raises(EngineMismatchError, match="no OpenVINO engine of ran-deploy"):
        profile(Workload(engine=b"no engine", feeds={"image": np.zeros((1, 2, 2, 3), np.uint8)}, runs=1, warm_up=0))
