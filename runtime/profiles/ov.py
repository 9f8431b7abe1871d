"""OpenVINO's profiler: performance counters of each kernel, in whole microseconds, averaged over all runs so far.

https://docs.openvino.ai/2025/openvino-workflow/running-inference/inference-devices-and-modes/query-device-properties.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ran_deploy.runtime.backends.ov import compiled_model
from ran_deploy.runtime.profiles.layer_time import LayerTime, VendorProfile
from ran_deploy.runtime.profiles.workload import Workload
from ran_deploy.runtime.timing import Timing, measure

__all__ = ["profile"]

MODELS = 5  # odd, so that one of them is the median
SOURCES = frozenset({"Input", "Output", "Const"})  # of what kernels read and make
CONVERSIONS = frozenset({"Convert", "FakeQuantize", "Reorder", "Transpose"})


def profile(workload: Workload) -> VendorProfile:
    """Return the time of each kernel. Raises: EngineMismatchError if OpenVINO cannot load the engine.

    OpenVINO keeps averages alone, which a moment of other load spoils. So the runs are shared out among a few models,
    each loaded anew, and the median of their averages counts.
    """
    runs = workload.runs
    shares = [len(share) for share in np.array_split(np.arange(runs), min(MODELS, runs))]
    averages, timings = zip(*(average(replace(workload, runs=share)) for share in shares), strict=True)
    layers = [
        replace(times[0], ms=float(np.median([time.ms for time in times]))) for times in zip(*averages, strict=True)
    ]
    durations_ms = tuple(duration for timing in timings for duration in timing.durations_ms)
    return VendorProfile(layers=tuple(layers), statistic="median of means", timing=Timing(durations_ms))


def average(workload: Workload) -> tuple[list[LayerTime], Timing]:
    """Load the engine and return the mean time of each kernel in the runs that count, and how long each run took."""
    warm_up, runs = workload.warm_up, workload.runs
    model = compiled_model(workload.engine, workload.threads, PERF_COUNT=True)
    request = model.create_infer_request()

    def run() -> None:
        request.infer(dict(workload.feeds), share_inputs=True)

    for _ in range(warm_up):
        run()
    before = averages_us(request) if warm_up else {}
    timing = measure(run, warm_up=0, repeats=runs)
    after = averages_us(request)
    return [layer_time(kernel, before, after, warm_up, runs) for kernel in kernels(model)], timing


def averages_us(request: Any) -> dict[str, float]:
    """Return the mean time of each node over all runs of its model so far, in microseconds, rounded down."""
    return {info.node_name: info.real_time.total_seconds() * 1e6 for info in request.profiling_info}


def kernels(model: Any) -> Iterator[Any]:
    """Yield the nodes of the compiled graph that run with each batch, not those that prepare constants."""
    varying: set[str] = set()
    for node in model.get_runtime_model().get_ordered_ops():
        kind, name = fact(node, "layerType"), node.get_friendly_name()
        sources = {value.get_node().get_friendly_name() for value in node.input_values()}
        if kind == "Input" or sources & varying:
            varying.add(name)
            if kind not in SOURCES:
                yield node


def layer_time(
    node: Any, before: Mapping[str, float], after: Mapping[str, float], warm_up: int, runs: int
) -> LayerTime:
    """Return the time of one kernel in the last `runs` runs, from the averages `before` them and `after` them."""
    name = node.get_friendly_name()
    total_us = after.get(name, 0.0) * (warm_up + runs) - before.get(name, 0.0) * warm_up
    return LayerTime(
        name=name,
        kind=fact(node, "layerType"),
        execution=fact(node, "primitiveType"),
        origins=tuple(fact(node, "originalLayersNames").split(",")),
        converts=fact(node, "layerType") in CONVERSIONS,
        ms=max(0.0, total_us / runs / 1000),
    )


def fact(node: Any, key: str) -> str:
    """Return what OpenVINO says of a node of its compiled graph, "" where it says nothing."""
    info = node.get_rt_info()
    return str(info[key].value) if key in info else ""
