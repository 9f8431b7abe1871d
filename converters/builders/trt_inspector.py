"""TensorRT's engine inspector: what it tells of the layers of an engine, which it must be able to load."""

from __future__ import annotations

from typing import Any

from ran_deploy.engine.refit import refit_engine
from ran_deploy.engine.traits import EngineTraits
from ran_deploy.errors import BuildError
from ran_deploy.vendors import import_tensorrt, tensorrt_log

__all__ = ["inspect_engine"]


def inspect_engine(package: str, engine: bytes, traits: EngineTraits) -> str:
    """Return the layers of an engine as JSON, for the batch it is optimised for. The caller has made or checked it.

    Raises: BuildError if it cannot be loaded here, which takes a GPU; EngineMismatchError if it gets no weights.
    """
    trt = import_tensorrt(package)
    log = tensorrt_log(package)
    log.take_errors()
    runtime = trt.Runtime(log.trt_logger)
    runtime.engine_host_code_allowed = traits.host_code
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is not None and traits.refit_from is not None:
        refit_engine(trt, log, loaded, traits.refit_from)
    context = None if loaded is None else loaded.create_execution_context()
    if context is None:
        reason = log.take_errors() or "no reason given"
        raise BuildError(f"{package} {trt.__version__} cannot load the engine here to look at its layers: {reason}.")
    _set_shapes(trt, loaded, context)
    inspector = loaded.create_engine_inspector()
    inspector.execution_context = context  # without it, types are "N/A due to dynamic shapes"
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _set_shapes(trt: Any, loaded: Any, context: Any) -> None:
    for index in range(loaded.num_io_tensors):
        name = loaded.get_tensor_name(index)
        if loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT and -1 in tuple(loaded.get_tensor_shape(name)):
            _, optimum, _ = loaded.get_tensor_profile_shape(name, 0)
            context.set_input_shape(name, tuple(optimum))
