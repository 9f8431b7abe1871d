"""Fixtures for the scripts of benchmarks/, which are no package."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest
from stand_in_libcuda import StandInLibcuda

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = (3, 5, 3)  # of images on the stand-ins
SCRIPTS = ("gpu_check", "gpu_runtime_check")


@pytest.fixture
def gpu(monkeypatch):
    """Return what imports a module of benchmarks/gpu, or one of the scripts themselves."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield lambda name: importlib.import_module(name if name in SCRIPTS else f"gpu.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gpu", *SCRIPTS)]:
        del sys.modules[name]


@pytest.fixture
def kernel_engine(gpu, stand_in, monkeypatch):
    """Return what puts the engine of two kernels on a stand-in for a GPU, and gives that GPU and its driver."""

    def install(**settings):
        device = stand_in(**settings)
        driver = gpu("driver").Driver(StandInLibcuda(device))
        monkeypatch.setitem(sys.modules, "tensorrt", None)  # put back after the test
        gpu("runtime_setting").put_in_place(driver)
        return device, driver

    return install


@pytest.fixture
def checks(gpu, kernel_engine, monkeypatch):
    """Return what makes the checks of these names on a new stand-in; it gives what they found by name, and the GPU."""

    def run(*names, api="cuda-python", steady=False, **settings):
        device, driver = kernel_engine(api=api, **settings)
        if steady:  # where times are compared; what keeps this machine busy beside must not matter
            device.pause = lambda: time.sleep(device.delay_s)
            monkeypatch.setattr(gpu("runtime_speed"), "SLOWER", 0.5)
        monkeypatch.setattr(gpu("runtime_speed"), "QUEUED", 4)
        monkeypatch.setattr(gpu("runtime_speed"), "ROUNDS", 3)
        script = gpu("gpu_runtime_check")
        setting = gpu("runtime_setting").Setting(
            driver=driver,
            captures=api in script.CAPTURING,
            small=SMALL,
            large=SMALL,
            sizes=(1, 2, 3, 4, 5, 6),
            timed_batch=4,
            copied_bytes=(1, 255, 4097),
            memory_bytes=2**23,
            seconds=0.05,
            leak_batches=60,
            repeats=4,
        )
        found = [script.checked(setting, name, script.CHECKS[name]) for name in names]
        return {check.name: check for check in found}, device

    return run
