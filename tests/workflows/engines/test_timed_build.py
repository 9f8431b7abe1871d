"""What is done with timings around a build. The builder is a stand-in whose timings are lines: TensorRT wants a GPU."""

from __future__ import annotations

import pytest

from ran_deploy.converters.builders import BuildOptions
from ran_deploy.converters.builders.trt import TensorRtBuilder
from ran_deploy.engine.device_files import timing_file
from ran_deploy.errors import BuildError
from ran_deploy.precision import Precision
from ran_deploy.workflows.engines import timed_build

OPTIONS = BuildOptions(precision=Precision.FP16)
HERE = {"tensorrt": "10.3.0", "GPU": "Orin"}


class StandIn(TensorRtBuilder):
    """It measures one kernel, named like the graph, unless that is among its timings."""

    def __init__(self, during=lambda: None) -> None:
        self.measured: list[bytes] = []
        self._during = during

    def build(self, graph, options, progress=None):
        self._during()
        if graph == b"refused":
            raise BuildError("refused")
        if graph not in self.timings.splitlines():
            self.measured.append(graph)
            self.timings += graph + b"\n"
        return b"engine of " + graph

    def merge_timings(self, other):
        self.timings = b"".join(sorted({*self.timings.splitlines(True), *other.splitlines(True)}))


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Return a function that builds a graph with a stand-in, in a cache of this test."""
    monkeypatch.setattr(timed_build, "fingerprint", lambda backend: HERE)

    def run(graph, builder):
        monkeypatch.setattr(timed_build, "open_builder", lambda backend: builder)
        engine = timed_build.engine_from_graph("tensorrt", graph, OPTIONS, cache_dir=tmp_path)
        assert engine.data == b"engine of " + graph
        assert engine.required == HERE
        return builder

    return run


def test_what_was_measured_is_not_measured_again(build):
    assert build(b"conv", StandIn()).measured == [b"conv"]
    assert build(b"conv", StandIn()).measured == []
    assert build(b"pool", StandIn()).measured == [b"pool"]


def test_what_another_process_measures_meanwhile_is_kept(build, tmp_path):
    file = timing_file(tmp_path, HERE)
    build(b"conv", StandIn(during=lambda: file.update(lambda now: b"pool\n")))
    assert file.read() == b"conv\npool\n"


def test_a_build_that_fails_leaves_the_timings_alone(build, tmp_path):
    build(b"conv", StandIn())
    with pytest.raises(BuildError):
        build(b"refused", StandIn())
    assert timing_file(tmp_path, HERE).read() == b"conv\n"


def test_builders_that_time_nothing_leave_no_file(build, tmp_path):
    builder = StandIn()
    builder.timings = None
    builder.build = lambda graph, options, progress: b"engine of " + graph
    build(b"conv", builder)
    assert not list(tmp_path.iterdir())
