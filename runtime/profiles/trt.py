"""TensorRT's profiler: an object that each run reports the time of every layer to. Not yet run on a GPU.

https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/Profiler.html
"""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import closing
from typing import Any

import numpy as np

from ran_deploy.errors import DeviceError
from ran_deploy.runtime.backends.trt import TRT_RUNNERS
from ran_deploy.runtime.profiles.layer_time import LayerTime, VendorProfile
from ran_deploy.runtime.profiles.workload import Workload
from ran_deploy.runtime.timing import measure
from ran_deploy.vendors import import_tensorrt

__all__ = ["LayerClock", "profile_tensorrt", "profile_tensorrt_rtx"]

REFORMAT = "Reformatting CopyNode"  # how the names of layers begin that change type or layout alone


class LayerClock:
    """Takes what is reported of layers, run after run: a name that comes again within a run is another layer."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, int], list[float]] = {}
        self._in_this_run: Counter[str] = Counter()

    def start_run(self) -> None:
        """Say that what is reported from now on is of a new run."""
        self._in_this_run.clear()

    def report(self, name: str, ms: float) -> None:
        """Take the time of one layer."""
        self._times.setdefault((name, self._in_this_run[name]), []).append(ms)
        self._in_this_run[name] += 1

    def layers(self, runs: int) -> tuple[LayerTime, ...]:
        """Return the layers in the order they were first reported, each the median of its last `runs` times."""
        return tuple(
            LayerTime(
                name=name,
                kind="",
                execution="",
                origins=tuple(name.split(" + ")),
                converts=name.startswith(REFORMAT),
                ms=float(np.median(times[-runs:])),
            )
            for (name, _), times in self._times.items()
        )


def new_profiler(package: str, clock: LayerClock) -> Any:
    """Return an IProfiler of TensorRT's that reports to `clock`."""
    trt: Any = import_tensorrt(package)

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            clock.report(layer_name, ms)

    return Profiler()


def profile(backend: str, workload: Workload) -> VendorProfile:
    """Return the median time of each layer, without CUDA graphs: TensorRT does not report what is launched as one.

    Vendors' words of a layer are for the engine inspector. Raises: EngineMismatchError, DeviceError.
    """
    kind, clock = TRT_RUNNERS[backend], LayerClock()
    profiler = new_profiler(kind.package, clock)
    opened = kind(workload.engine, traits=workload.traits, slots=1, graphs=False, repeated=0, profiler=profiler)
    with closing(opened) as runner:

        def run() -> None:
            clock.start_run()
            runner.infer(workload.feeds)

        timing = measure(run, warm_up=workload.warm_up, repeats=workload.runs)
    layers = clock.layers(workload.runs)
    if not layers:
        raise DeviceError(
            f"{kind.package} reports no layer of this engine: it cannot be profiled. Leave --profile out."
        )
    return VendorProfile(layers=layers, statistic="median", timing=timing)


profile_tensorrt = functools.partial(profile, "tensorrt")
profile_tensorrt_rtx = functools.partial(profile, "tensorrt-rtx")
