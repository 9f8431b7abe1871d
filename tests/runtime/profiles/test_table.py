from __future__ import annotations

import importlib

import pytest

from ran_deploy.runtime.backends import RUNNERS
from ran_deploy.runtime.profiles import PROFILERS


def test_every_engine_that_runs_can_be_profiled():
    assert PROFILERS.keys() == RUNNERS.keys()


@pytest.mark.parametrize("place", PROFILERS.values())
def test_every_profiler_is_there(place):
    module, name = place.split(":")
    assert callable(getattr(importlib.import_module(module), name))
