"""Fixtures that put the stand-ins in the place of the vendors' packages."""

from __future__ import annotations

import sys

import pytest
from stand_in_cuda_python import stand_in_driver, stand_in_runtime
from stand_in_gpu import StandInGpu
from stand_in_pycuda import stand_in_pycuda
from stand_in_tensorrt import stand_in_tensorrt

from ran_deploy import vendors
from ran_deploy.runtime.cuda.binding import binding


@pytest.fixture
def make_gpu():
    """Return what makes a stand-in for a GPU; when the test is over, it has seen no misuse and holds nothing."""
    made = []

    def make(**settings) -> StandInGpu:
        made.append(StandInGpu(**settings))
        return made[-1]

    yield make
    for gpu in made:
        assert gpu.faults == []
        assert gpu.live() == {}


@pytest.fixture
def stand_in(make_gpu, monkeypatch):
    """Return what puts stand-ins in the place of a CUDA binding and of a TensorRT package, and gives their GPU."""

    def forget() -> None:
        binding.cache_clear()
        vendors.tensorrt_log.cache_clear()

    def install(package: str = "tensorrt", *, api: str = "cuda-python", **settings) -> StandInGpu:
        gpu = make_gpu(**settings)
        offered = {"cuda.bindings.runtime": None, "cuda.bindings.driver": None, "pycuda.driver": None}
        if api == "cuda-python":
            offered |= {"cuda.bindings.runtime": stand_in_runtime(gpu), "cuda.bindings.driver": stand_in_driver(gpu)}
        else:
            offered["pycuda.driver"] = stand_in_pycuda(gpu)
        for name, module in {**offered, package: stand_in_tensorrt(gpu, package)}.items():
            monkeypatch.setitem(sys.modules, name, module)
        forget()
        return gpu

    yield install
    forget()
