"""TensorRT's profile. Nothing here runs a network: engines and GPU are the stand-ins of tests/stand_ins."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import stand_in_tensorrt
from stand_in_tensorrt import engine_bytes, layer_times

from ran_deploy.errors import DeviceError, EngineMismatchError, ShapeError
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.profiles import Workload, profile_engine
from ran_deploy.runtime.profiles.trt import LayerClock

BACKENDS = ["tensorrt", "tensorrt-rtx"]


def feeds(batch: int) -> dict[str, np.ndarray]:
    return {"image": np.zeros((batch, 9, 14, 3), np.uint8)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_layer_is_the_median_of_the_runs_that_count(stand_in, backend):
    gpu = stand_in(backend.replace("-", "_"))
    profile = profile_engine(backend, Workload(engine=engine_bytes([(1, 3, 7)]), feeds=feeds(3), runs=5, warm_up=2))
    reported = [layer_times(3, run) for run in (3, 4, 5, 6, 7)]  # those of runs 1 and 2 are warm-up
    assert [(layer.name, layer.ms) for layer in profile.layers] == [
        (times[0][0], statistics.median(ms for _, ms in times)) for times in zip(*reported, strict=True)
    ]
    assert [layer.converts for layer in profile.layers] == [False, True, False]
    assert (profile.statistic, len(profile.timing.durations_ms)) == ("median", 5)
    assert gpu.calls["cudaGraphLaunch"] == gpu.calls["graphs of TensorRT-RTX"] == 0
    assert gpu.calls["create_execution_context"] == 1
    assert gpu.live() == {}


def test_a_runner_without_a_profiler_reports_nothing(stand_in):
    gpu = stand_in()
    runner = open_runner("tensorrt", engine_bytes([(1, 3, 7)]))
    runner.infer(feeds(2))
    runner.close()
    assert gpu.calls["profiled"] == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_run_is_refused_and_nothing_stays_behind(stand_in, backend):
    gpu = stand_in(backend.replace("-", "_"))
    with pytest.raises(EngineMismatchError, match="the plan is damaged"):
        profile_engine(backend, Workload(engine=b"no engine", feeds=feeds(1), runs=1, warm_up=0))
    with pytest.raises(ShapeError):
        profile_engine(backend, Workload(engine=engine_bytes([(1, 3, 7)]), feeds=feeds(8), runs=1, warm_up=0))
    assert gpu.live() == {}


def test_an_engine_whose_layers_are_not_reported_is_refused(stand_in, monkeypatch):
    gpu = stand_in()
    monkeypatch.setattr(stand_in_tensorrt, "layer_times", lambda batch, run: [])
    with pytest.raises(DeviceError, match="tensorrt reports no layer of this engine"):
        profile_engine("tensorrt", Workload(engine=engine_bytes([(1, 3, 7)]), feeds=feeds(1), runs=1, warm_up=0))
    assert gpu.live() == {}


def test_fused_layers_name_each_node():
    clock = LayerClock()
    clock.report("conv.weight + relu/QuantizeLinear + node_Conv_3 + node_relu", 0.5)
    (layer,) = clock.layers(1)
    assert layer.origins == ("conv.weight", "relu/QuantizeLinear", "node_Conv_3", "node_relu")
