"""An engine that is no network: two small CUDA kernels behind the interface of TensorRT that our runner uses.

It stands for an engine where TensorRT refuses the GPU, so that all that lies around one can be verified there. Its
results are whole numbers that the host computes too, so each is held bit for bit against `expected_logits`.
"""

from __future__ import annotations

import ctypes
import enum
import json
import threading
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
from gpu.driver import Driver

from ran_deploy.errors import DeviceError

CLASSES = 10
THREADS = 256  # of a block
MAGIC = b"stand-in engine of two CUDA kernels\n"
BYTE_STEP, CLASS_STEP, ROUND_STEP = 2654435761, 2246822519, 3266489917  # A, B, C of kernel.ptx: odd, as xxHash has them


def plan(
    image: tuple[int, int, int],
    profiles: Sequence[tuple[int, int, int]],
    *,
    rounds: int = 1,
    scratch_bytes: int = 0,
    refused: Sequence[int] = (),
) -> bytes:
    """Return an engine for uint8 images (height, width, 3) in batches of `profiles`: minimum, optimum, maximum.

    It reads each byte `rounds` times for each class, takes `scratch_bytes` of memory more than it needs, and refuses to
    queue its calls of these numbers, counted from 0.
    """
    facts = {"image": image, "profiles": profiles, "rounds": rounds, "scratch_bytes": scratch_bytes}
    return MAGIC + json.dumps({**facts, "refused": refused}).encode()


def expected_logits(images: np.ndarray, rounds: int = 1) -> np.ndarray:
    """Return what the kernels compute for uint8 (N, height, width, 3): float32 (N, 10), exact. See kernel.ptx."""
    rows = images.reshape(len(images), -1).astype(np.uint64)
    total = rows.sum(axis=1)[:, None]
    by_place = (rows * np.arange(rows.shape[1], dtype=np.uint64)).sum(axis=1)[:, None]
    classes = np.arange(CLASSES, dtype=np.uint64)
    of_rounds = rounds * (rounds - 1) // 2 * ROUND_STEP % 2**32
    sums = rounds * (BYTE_STEP * by_place + CLASS_STEP * classes * total) + of_rounds * total
    return ((sums % 2**32) >> 8).astype(np.float32)


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])


class Engine:
    """An ICudaEngine of one input, image, and one output, logits."""

    def __init__(self, driver: Driver, logger: Any, facts: dict[str, Any]) -> None:
        self.driver = driver
        self._logger = logger
        self.image = tuple(facts["image"])
        self.profiles = [tuple(profile) for profile in facts["profiles"]]
        self.rounds = int(facts["rounds"])
        self.num_io_tensors = 2
        self.num_optimization_profiles = len(self.profiles)
        self.sums_bytes = 4 * CLASSES * max(profile[2] for profile in self.profiles)
        self.device_memory_size_v2 = self.sums_bytes + facts["scratch_bytes"]
        self._calls = 0
        self._refused = frozenset(facts["refused"])
        self._lock = threading.Lock()

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.image) if name == "image" else (-1, CLASSES)

    def get_tensor_dtype(self, name: str) -> type:
        return np.uint8 if name == "image" else np.float32

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(batch, *self.image) for batch in self.profiles[profile]]

    def create_execution_context(self, memory: ExecutionContextAllocationStrategy) -> Context:
        return Context(self)

    def accepts_call(self) -> bool:
        """Count a call; return whether it may be queued."""
        with self._lock:
            number, self._calls = self._calls, self._calls + 1
        return number not in self._refused

    def refuse(self, reason: str) -> bool:
        """Tell TensorRT's log why; return False, as TensorRT's calls do."""
        self._logger.log(ILogger.Severity.ERROR, reason)
        return False


class Context:
    """An IExecutionContext: the sums lie in the memory that the runner gives for the engine's layers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = engine.profiles[0]
        self._batch: int | None = None
        self._scratch = 0
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile, self._batch = self._engine.profiles[profile], None
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._scratch = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if tuple(shape[1:]) != self._engine.image or not self._profile[0] <= shape[0] <= self._profile[2]:
            return self._engine.refuse(f"{name} of {shape} is outside the profile")
        self._batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = -1 if self._batch is None else self._batch
        return (batch, *self._engine.get_tensor_shape(name)[1:])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Queue both kernels. False, with the reason in the log, where that fails or the plan says so."""
        engine, batch = self._engine, self._batch
        if not engine.accepts_call():
            return engine.refuse("this call is one of those that the plan says to refuse")
        if batch is None or not self._scratch or len(self._addresses) != engine.num_io_tensors:
            return engine.refuse("shape, memory or address is not set")
        image, sums, logits = map(ctypes.c_uint64, (self._addresses["image"], self._scratch, self._addresses["logits"]))
        row_bytes, rounds, count = map(ctypes.c_uint32, (np.prod(engine.image), engine.rounds, batch * CLASSES))
        blocks = -(-batch * CLASSES // THREADS)
        try:
            engine.driver.launch("weighted_sums", (CLASSES, batch), THREADS, stream, image, sums, row_bytes, rounds)
            engine.driver.launch("logits_from_sums", (blocks, 1), THREADS, stream, sums, logits, count)
        except DeviceError as exc:
            return engine.refuse(str(exc))
        return True


def kernel_tensorrt(driver: Driver) -> types.ModuleType:
    """Return a module with TensorRT's names, to stand in `sys.modules`, whose Runtime loads a `plan`."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if not data.startswith(MAGIC):
                self._logger.log(ILogger.Severity.ERROR, "this is no plan of the stand-in engine")
                return None
            return Engine(driver, self._logger, json.loads(data.removeprefix(MAGIC)))

    module: Any = types.ModuleType("stand-in engine for tensorrt")
    module.__version__ = "10.3.0"  # the interface that it offers
    module.Runtime, module.ILogger, module.TensorIOMode = Runtime, ILogger, TensorIOMode
    module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    module.nptype = np.dtype
    return module
