"""The vendors' packages, which builders and runners share: imported on demand, telemetry off, messages in one line.

Importing this module imports none of them.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import sys
from collections import deque
from types import ModuleType
from typing import Any

from ran_deploy.errors import BackendUnavailableError

__all__ = [
    "LogCollector",
    "import_onnxruntime",
    "import_openvino",
    "import_tensorrt",
    "one_line",
    "parser_error",
    "require_dla_core",
    "tensorrt_log",
]

_log = logging.getLogger(__name__)

# Importing onnxruntime (seen in 1.32) keeps a device id and a database of events in the cache folder, which its
# disable_telemetry_events cannot stop any more. Set here, so that processes we start (onnxsim) have it too.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

INSTALL = {
    "onnxruntime": "pip install 'ran-deploy[onnxruntime]'",
    "openvino": "pip install 'ran-deploy[openvino]'",
    "tensorrt": "JetPack brings it; elsewhere: pip install tensorrt",
    "tensorrt_rtx": "pip install 'ran-deploy[tensorrt-rtx]'",
}
OLDEST_TENSORRT = (10, 1)
# Lines that say where in the vendor's source a check failed, which helps nobody outside that vendor.
_SOURCE_LINE = re.compile(r"^(Exception from \S+|Check '.*' failed at \S+):?$")


def one_line(error: object, limit: int = 400) -> str:
    """Return a vendor's message without line breaks and source positions, at most `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not _SOURCE_LINE.match(line)] or [line for line in lines if line]
    text = " ".join(kept) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _import(package: str) -> ModuleType:
    # RuntimeError and OSError too: a package that is there may fail to load its own shared libraries.
    try:
        return importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as exc:
        reason = f"Cannot import {package} ({one_line(exc)}). Install it: {INSTALL[package]}."
        raise BackendUnavailableError(reason) from exc


def import_onnxruntime() -> ModuleType:
    """Return onnxruntime, its telemetry off. Raises: BackendUnavailableError."""
    ort = _import("onnxruntime")
    ort.disable_telemetry_events()
    ort.set_default_logger_severity(3)  # errors; what matters arrives as an exception
    return ort


def import_openvino() -> ModuleType:
    """Return openvino, its telemetry off. Raises: BackendUnavailableError."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    # `import openvino` sends an event by itself, and no setting stops it; without this package it takes its own stub.
    telemetry = sys.modules.get("openvino_telemetry")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return _import("openvino")
    finally:
        del sys.modules["openvino_telemetry"]
        if telemetry is not None:
            sys.modules["openvino_telemetry"] = telemetry


def import_tensorrt(package: str) -> ModuleType:
    """Return `tensorrt` or `tensorrt_rtx`. Raises: BackendUnavailableError, also for a TensorRT that is too old."""
    trt = _import(package)
    # TensorRT 8 knows neither strongly typed networks nor opset 18 and 19, which our graphs are in; 10.0 lacks
    # set_device_memory, by which the contexts of an engine share memory.
    version = tuple(int(part) for part in re.findall(r"[0-9]+", trt.__version__)[:2])
    if package == "tensorrt" and version < OLDEST_TENSORRT:
        raise BackendUnavailableError(
            f"tensorrt {trt.__version__} cannot build or run the engines of a bundle; expected "
            f"{'.'.join(map(str, OLDEST_TENSORRT))} or newer: JetPack 6.1 and later bring it; elsewhere: pip install "
            "tensorrt."
        )
    return trt


def parser_error(error: Any) -> str:
    """Return what TensorRT's ONNX parser refuses: the node, where it names one, and the reason."""
    # A missing GPU echoes through every description; it is never the reason here.
    lines = [line for line in error.desc().splitlines() if "catchCudaError" not in line]
    reason = f"{error.code().name}: {one_line(' '.join(lines))}"
    return f"node {error.node_name()!r} ({error.node_operator()}): {reason}" if error.node_operator() else reason


def require_dla_core(trt: Any, cores: int, index: int) -> None:
    """Raises: BackendUnavailableError if a TensorRT that finds so many DLA cores has none of that number."""
    if cores == 0:
        raise BackendUnavailableError(
            f"{trt.__name__} {trt.__version__} finds no DLA core here: Jetson Orin has them, with TensorRT up to 10.7 "
            "or from 11.4.1 on. Leave --device out to use the GPU."
        )
    if not 0 <= index < cores:
        listed = ", ".join(f"dla:{core}" for core in range(cores))
        raise BackendUnavailableError(f"There is no DLA core dla:{index}; this device has {cores}. Choose of {listed}.")


class LogCollector:
    """Passes TensorRT's log on to `logging` and remembers the last errors and warnings, which it tells nowhere else."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=8)
        self.warnings: deque[str] = deque(maxlen=8)
        self.trt_logger: Any = None

    def error(self, message: str) -> None:
        """Take one error. It is logged as information: it reaches the user in the exception raised for it."""
        self.errors.append(one_line(message))
        _log.info("%s", message)

    def warning(self, message: str) -> None:
        """Take one warning. There is one a layer, not one a problem, so nobody is shown them unasked."""
        self.warnings.append(one_line(message))
        _log.debug("%s", message)

    def take_warnings(self) -> tuple[str, ...]:
        """Return the last warnings since the last call, each once, and forget them."""
        taken = tuple(dict.fromkeys(self.warnings))
        self.warnings.clear()
        return taken

    def take_errors(self) -> str:
        """Return the errors since the last call, the first (the cause) first, and forget them."""
        text = "; ".join(dict.fromkeys(self.errors))
        self.errors.clear()
        return one_line(text) if text else ""


@functools.cache  # TensorRT keeps a raw pointer to the first logger it sees: one each process, and never freed
def tensorrt_log(package: str) -> LogCollector:
    """Return the log of `package`; its `trt_logger` is what TensorRT's factories take."""
    trt: Any = import_tensorrt(package)
    levels = trt.ILogger.Severity
    collector = LogCollector()

    class TrtLogger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                collector.error(message)
            elif severity == levels.WARNING:
                collector.warning(message)
            elif severity != levels.VERBOSE:  # thousands of lines a build
                _log.debug("%s", message)

    collector.trt_logger = TrtLogger()
    return collector
