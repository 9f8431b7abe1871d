from __future__ import annotations

import enum
from types import SimpleNamespace

import pytest

from ran_deploy.converters.builders import trt_inspector
from ran_deploy.converters.builders.trt_inspector import inspect_engine
from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.errors import BackendUnavailableError, BuildError


@pytest.mark.parametrize("engine", [b"", b"no engine at all"])
def test_an_engine_that_cannot_be_loaded_is_told_in_one_line(engine):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(
        BuildError, match=r"tensorrt_rtx 1\S+ cannot load the engine here to look at its layers: "
    ) as error:
        inspect_engine("tensorrt_rtx", engine, NO_TRAITS)
    assert "\n" not in str(error.value)
    assert "no reason given" not in str(error.value)


def test_without_the_package_its_name_is_told():
    with pytest.raises((BackendUnavailableError, BuildError), match="tensorrt") as error:
        inspect_engine("tensorrt", b"", NO_TRAITS)
    assert "\n" not in str(error.value)


class StandIn:
    """A stand-in for TensorRT with one engine; it says what its inspector is asked and in which state."""

    __version__ = "10.3.0"
    TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
    LayerInformationFormat = enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"])
    SHAPES = {"image": (-1, 9, 14, 3), "weights": (2, 3), "logits": (-1, 10)}

    def __init__(self) -> None:
        self.allowed: bool | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.Runtime = self.new_runtime

    def new_runtime(self, logger):
        stand_in = self

        class Runtime:
            engine_host_code_allowed = False

            def deserialize_cuda_engine(self, data):
                stand_in.allowed = self.engine_host_code_allowed
                return stand_in.engine() if data == b"plan" else None

        return Runtime()

    def engine(self):
        names = list(self.SHAPES)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=names.__getitem__,
            get_tensor_mode=lambda name: self.TensorIOMode.OUTPUT if name == "logits" else self.TensorIOMode.INPUT,
            get_tensor_shape=self.SHAPES.__getitem__,
            get_tensor_profile_shape=lambda name, index: [(size + index, 9, 14, 3) for size in (1, 8, 32)],
            create_execution_context=lambda: SimpleNamespace(set_input_shape=self.shapes.__setitem__),
            create_engine_inspector=self.inspector,
        )

    def inspector(self):
        stand_in = self

        class Inspector:
            execution_context = None

            def get_engine_information(self, form):
                known = self.execution_context is not None and stand_in.shapes == {"image": (8, 9, 14, 3)}
                return f"{form.name}, {'types' if known else 'N/A due to dynamic shapes'}"

        return Inspector()


@pytest.mark.parametrize("host_code", [False, True])
def test_layers_are_asked_for_with_the_optimal_batch_of_the_first_profile(monkeypatch, host_code):
    trt = StandIn()
    monkeypatch.setattr(trt_inspector, "import_tensorrt", lambda package: trt)
    log = SimpleNamespace(trt_logger=None, take_errors=lambda: "")
    monkeypatch.setattr(trt_inspector, "tensorrt_log", lambda package: log)
    assert inspect_engine("tensorrt", b"plan", EngineTraits(host_code=host_code)) == "JSON, types"
    assert trt.allowed is host_code
    with pytest.raises(BuildError, match="cannot load the engine here"):
        inspect_engine("tensorrt", b"another plan", NO_TRAITS)


def test_an_engine_without_weights_gets_them_before_a_context_is_made(monkeypatch):
    trt, order = StandIn(), []
    monkeypatch.setattr(trt_inspector, "import_tensorrt", lambda package: trt)
    log = SimpleNamespace(trt_logger=None, take_errors=lambda: "")
    monkeypatch.setattr(trt_inspector, "tensorrt_log", lambda package: log)
    monkeypatch.setattr(trt_inspector, "refit_engine", lambda trt, log, engine, graph: order.append(graph))
    monkeypatch.setattr(trt, "shapes", SimpleNamespace(__setitem__=lambda name, shape: order.append(shape)))
    inspect_engine("tensorrt", b"plan", EngineTraits(refit_from=b"graph"))
    assert order == [b"graph", (8, 9, 14, 3)]
