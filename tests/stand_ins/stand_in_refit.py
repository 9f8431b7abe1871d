"""A stand-in for TensorRT's refitting, as NVIDIA documents REFIT_IDENTICAL: right with the very weights of the build.

https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/refitting-engines.html
https://github.com/onnx/onnx-tensorrt/blob/main/ModelRefitter.cpp
"""

from __future__ import annotations

import hashlib
import weakref
from types import SimpleNamespace
from typing import Any

import onnx


def weight_digests(graph: bytes) -> dict[str, str]:
    """Return the sha256 of each initializer of a serialised ONNX graph. Raises: what protobuf raises otherwise."""
    initializers = onnx.load_from_string(graph).graph.initializer
    return {each.name: hashlib.sha256(onnx.numpy_helper.to_array(each).tobytes()).hexdigest() for each in initializers}


class Refitter:
    """Of an engine that was built without weights; of another one TensorRT's factory gives None: a TypeError."""

    def __init__(self, engine: Any, logger: Any) -> None:
        if engine.lacks is None:
            logger.log(logger.Severity.ERROR, "the engine is not refittable")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        engine.gpu.refuse_during_capture()
        self.engine, self.logger = engine, logger
        self.supplied: dict[str, str] = {}
        self.parser: Any = lambda: None

    def get_missing_weights(self) -> list[str]:
        return [name for name in self.engine.lacks if name not in self.supplied]

    def refit_cuda_engine(self) -> bool:
        engine = self.engine
        if engine.contexts:
            engine.gpu.fault("an engine with contexts was refitted")
        if self.parser() is None:
            engine.gpu.fault("the weights were gone before they were on the device")
        try:
            engine.gpu.entered("refit_cuda_engine")
        except Exception as exc:
            self.logger.log(self.logger.Severity.ERROR, f"cannot refit: {exc}")
            return False
        if self.get_missing_weights():
            return False
        engine.identical = all(self.supplied[name] == digest for name, digest in engine.lacks.items())
        engine.lacks = {}
        return True


class OnnxParserRefitter:
    """It supplies the initializers whose names the engine has, and owns them."""

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self.refitter = refitter
        self.errors: list[tuple[str, str]] = []
        refitter.parser = weakref.ref(self)

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        code, text = self.errors[index]
        return SimpleNamespace(
            code=lambda: SimpleNamespace(name=code), desc=lambda: text, node_operator=lambda: "", node_name=lambda: ""
        )

    def refit_from_bytes(self, graph: bytes) -> bool:
        try:
            found = weight_digests(graph)
        except Exception:
            self.errors.append(("MODEL_DESERIALIZE_FAILED", "Failed to parse the ONNX model"))
            return False
        wanted = self.refitter.engine.lacks
        self.refitter.supplied = {name: digest for name, digest in found.items() if name in wanted}
        if len(self.refitter.supplied) == len(wanted):
            return True
        text = f"Only successfully refitted {len(self.refitter.supplied)} weights out of {len(wanted)}"
        self.errors.append(("REFIT_FAILED", text))
        return False
