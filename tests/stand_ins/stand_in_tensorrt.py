"""A stand-in for TensorRT's runtime over the stand-in of a GPU: an engine that computes row sums, not a network.

`engine_bytes` describes it; `row_sums` is what it computes. It holds a program to what NVIDIA documents of
IExecutionContext, https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/ExecutionContext.html,
of objects and threads, https://docs.nvidia.com/deeplearning/tensorrt/latest/architecture/how-trt-works.html#threading,
and of CUDA graphs, https://docs.nvidia.com/deeplearning/tensorrt/latest/performance/best-practices.html#cuda-graphs:
shapes outside the profile are refused; every tensor needs an address; two calls of one context may not overlap; after a
change of shape it must have run once before it can be captured.
"""

from __future__ import annotations

import enum
import json
import threading
import types
from typing import Any

import numpy as np
from stand_in_gpu import StandInGpu
from stand_in_memory import GpuError
from stand_in_refit import OnnxParserRefitter, Refitter, weight_digests
from stand_in_stream import Operation

CLASSES = 10
MAGIC = b"stand-in engine\n"
SCRATCH_BYTES_PER_ROW = 1024


def engine_bytes(
    profiles: list[tuple[int, int, int]],
    *,
    image: tuple[int, ...] = (9, 14, 3),
    dynamic: bool = True,
    stripped: bytes | None = None,
) -> bytes:
    """Return an engine for batches of `profiles`, each (minimum, optimum, maximum).

    `stripped` is the graph of one that was built without its weights.
    """
    lacks = None if stripped is None else weight_digests(stripped)
    return MAGIC + json.dumps({"profiles": profiles, "image": image, "dynamic": dynamic, "lacks": lacks}).encode()


def row_sums(images: np.ndarray) -> np.ndarray:
    """Return float32 (N, 10): of each row the sums of its bytes times 1, 2, ... shifted by class; exact."""
    flat = images.reshape(len(images), -1).astype(np.int64)
    places = np.arange(flat.shape[1])
    return np.stack([(flat * ((places + k) % 7 + 1)).sum(axis=1) for k in range(CLASSES)], axis=1).astype(np.float32)


def layer_times(batch: int, run: int) -> list[tuple[str, float]]:
    """Return name and ms of each layer of the engine as the `run`-th profiled run reports it, in binary fractions."""
    return [("sums", 0.5 * batch + run / 16), ("Reformatting CopyNode for Output", 0.25), ("sums", 1.0 * run)]


class IProfiler:
    """Reports nothing by itself: a program derives its own."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class ExecutionContextAllocationStrategy(enum.Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = range(2)


class RuntimeCache:
    """Of TensorRT-RTX: what was compiled for an engine. It takes back only what it wrote itself."""

    def __init__(self) -> None:
        self.content = b""

    def serialize(self) -> bytes:
        return b"compiled by the stand-in:" + self.content

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(b"compiled by the stand-in:"):
            return False
        self.content = blob.partition(b":")[2]
        return True


class RuntimeConfig:
    """Of TensorRT-RTX: how a context is made."""

    def __init__(self) -> None:
        self.cache: RuntimeCache | None = None
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.memory = ExecutionContextAllocationStrategy.STATIC

    def set_execution_context_allocation_strategy(self, strategy: ExecutionContextAllocationStrategy) -> None:
        self.memory = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class ILogger:
    Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def __init__(self) -> None: ...


class Engine:
    def __init__(self, gpu: StandInGpu, logger: Any, facts: dict[str, Any]) -> None:
        self.gpu, self.logger = gpu, logger
        self.device = gpu.device
        self.profiles = [tuple(each) for each in facts["profiles"]]
        self.row = tuple(facts["image"])
        self.dynamic = facts["dynamic"]
        self.lacks: dict[str, str] | None = facts["lacks"]  # sha256 by name; None: it is not to be refitted
        self.identical = True  # whether what it was refitted with is what it was built with
        self.num_io_tensors = 2
        self.num_optimization_profiles = len(self.profiles)
        self.device_memory_size_v2 = SCRATCH_BYTES_PER_ROW * max(each[2] for each in self.profiles)
        self.contexts: list[Context] = []
        self.alone = threading.Lock()

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = -1 if self.dynamic else self.profiles[0][2]
        return (batch, *self.row) if name == "image" else (batch, CLASSES)

    def get_tensor_dtype(self, name: str) -> Any:
        return np.uint8 if name == "image" else np.float32

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name == "image"
        return [(batch, *self.row) for batch in self.profiles[profile]]

    def create_execution_context(self, options: Any = ExecutionContextAllocationStrategy.STATIC) -> Context | None:
        memory = options.memory if isinstance(options, RuntimeConfig) else options
        if not self.alone.acquire(blocking=False):
            self.gpu.fault("two threads made contexts of one engine at once")
            self.alone.acquire()
        if self.lacks:
            self.gpu.fault("a context was made of an engine without weights")
        try:
            self.gpu.entered("create_execution_context")
            self.gpu.pause()
            self.gpu.refuse_during_capture()  # it allocates
            context = Context(self, own_memory=memory is ExecutionContextAllocationStrategy.STATIC)
        except GpuError as exc:
            self.logger.log(ILogger.Severity.ERROR, f"cannot create a context: {exc}")
            return None
        finally:
            self.alone.release()
        cache = getattr(options, "cache", None)
        if cache is not None and b"kernels" not in cache.content:
            self.gpu.calls["compiled"] += 1
            cache.content += b"kernels"
        context.captures = getattr(options, "cuda_graph_strategy", None) is CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self.contexts.append(context)
        return context


class RtxEngine(Engine):
    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()


class Context:
    def __init__(self, engine: Engine, *, own_memory: bool) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.active_optimization_profile = 0
        self.addresses: dict[str, int] = {}
        self.batch: int | None = None if engine.dynamic else engine.profiles[0][2]
        self.ran_with: int | None = None  # the batch of the last call, which made what that shape needs
        self.memory: object = self if own_memory else None
        self.captures = False  # TensorRT-RTX's own graphs
        self.profiler: IProfiler | None = None
        self.enqueue_emits_profile = True
        self._check_device("a context was created")

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._check_device("a profile was set")
        self.gpu.stream(stream)
        if not 0 <= profile < len(self.engine.profiles):
            return False
        self.active_optimization_profile = profile
        self.batch = None if self.engine.dynamic else self.batch
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        assert memory % 256 == 0
        self.memory = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        minimum, _, maximum = self.engine.profiles[self.active_optimization_profile]
        if tuple(shape[1:]) != self.engine.row or not minimum <= shape[0] <= maximum:
            self.engine.logger.log(ILogger.Severity.ERROR, f"{name}: {shape} is outside the profile")
            return False
        self.batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = -1 if self.batch is None else self.batch
        return (batch, *self.engine.row) if name == "image" else (batch, CLASSES)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        gpu = self.gpu
        self._check_device("a batch was queued")
        try:
            gpu.entered("execute_async_v3")
        except GpuError as exc:
            self.engine.logger.log(ILogger.Severity.ERROR, f"cannot enqueue: {exc}")
            return False
        if self.batch is None or self.memory is None or set(self.addresses) != {"image", "logits"}:
            self.engine.logger.log(ILogger.Severity.ERROR, "shape, memory or address is not set")
            return False
        if gpu.stream(stream).captured is not None and self.ran_with != self.batch:
            gpu.stream(stream).invalid = True
            return False
        if self.captures and self.ran_with != self.batch:
            gpu.calls["graphs of TensorRT-RTX"] += 1  # again for every change of shape
        self.ran_with = self.batch
        gpu.enqueue(stream, self._operation(self.batch, **self.addresses))
        if self.profiler is not None and self.enqueue_emits_profile:
            gpu.synchronize(stream)  # and so does TensorRT: the times are there when the call returns
            gpu.calls["profiled"] += 1
            for name, ms in layer_times(self.batch, gpu.calls["profiled"]):
                self.profiler.report_layer_time(name, ms)
        return True

    def _operation(self, batch: int, image: int, logits: int) -> Operation:
        size = batch * int(np.prod(self.engine.row))

        def run() -> None:
            with self.gpu.busy():
                self.gpu.entered("kernel")
                images = self.gpu.read(image, size).reshape(batch, *self.engine.row).copy()
                self.gpu.pause()
                self.gpu.write(
                    logits, row_sums(images) if self.engine.identical else np.full((batch, CLASSES), np.nan, np.float32)
                )

        return Operation(run, ((image, size),), ((logits, batch * CLASSES * 4),), scratch=self.memory)

    def _check_device(self, what: str) -> None:
        if self.gpu.device != self.engine.device:
            self.gpu.fault(f"{what} on device {self.gpu.device}; the engine is on device {self.engine.device}")


def stand_in_tensorrt(gpu: StandInGpu, name: str = "tensorrt") -> types.ModuleType:
    """Return a module of TensorRT's names whose engines run on `gpu`."""
    module = types.ModuleType(f"stand-in for {name}")
    kind = RtxEngine if name == "tensorrt_rtx" else Engine

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            self.DLA_core = -1  # as documented
            self.num_DLA_cores = gpu.dla_cores

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            if not data.startswith(MAGIC):
                self.logger.log(ILogger.Severity.ERROR, "the plan is damaged")
                return None
            gpu.loaded_on.append(self.DLA_core)
            return kind(gpu, self.logger, json.loads(data[len(MAGIC) :]))

    module.__version__ = "10.99.0"
    module.Runtime, module.ILogger, module.TensorIOMode = Runtime, ILogger, TensorIOMode
    module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    module.IProfiler = IProfiler
    module.Refitter, module.OnnxParserRefitter = Refitter, OnnxParserRefitter
    if kind is RtxEngine:
        module.CudaGraphStrategy = CudaGraphStrategy
    module.nptype = lambda dtype: dtype
    return module
