"""A loaded engine of TensorRT or TensorRT-RTX: its tensors, its profiles, and new execution contexts."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np

from ran_deploy.engine.refit import refit_engine
from ran_deploy.engine.traits import EngineTraits
from ran_deploy.errors import DeviceError, EngineMismatchError
from ran_deploy.runtime.backends.trt_profiles import profiles_of
from ran_deploy.runtime.runner import TensorSpec
from ran_deploy.vendors import import_tensorrt, require_dla_core, tensorrt_log

__all__ = ["TensorRtEngine"]

logger = logging.getLogger(__name__)


class TensorRtEngine:
    """An engine on the calling thread's device; everything is to be used while that device is current.

    `compiled` is what `newly_compiled` gave of such an engine before. `dla_core` is where the layers for DLA run.
    `profiler` is an IProfiler that every context reports each run's layers to.
    Raises: EngineMismatchError if `data` is no engine for this package and device, or it does not get all its weights;
    BackendUnavailableError without that DLA core.
    """

    def __init__(
        self,
        package: str,
        data: bytes,
        traits: EngineTraits,
        *,
        graphs: bool = True,
        compiled: bytes = b"",
        dla_core: int | None = None,
        profiler: Any = None,
    ) -> None:
        self.package = package
        self._trt: Any = import_tensorrt(package)
        log = tensorrt_log(package)
        log.take_errors()
        self._runtime: Any = self._trt.Runtime(log.trt_logger)  # the engine needs it
        self._runtime.engine_host_code_allowed = traits.host_code
        if dla_core is not None:
            require_dla_core(self._trt, int(self._runtime.num_DLA_cores), dla_core)
            self._runtime.DLA_core = dla_core  # before it loads the engine, which stays there
        self._engine: Any = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineMismatchError(
                f"{package} {self._trt.__version__} cannot load this engine: {self.reason()}. "
                "Build it on this machine with ran-build."
            )
        if traits.refit_from is not None:
            refit_engine(self._trt, log, self._engine, traits.refit_from)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        mode = self._trt.TensorIOMode.INPUT
        is_input = {name: self._engine.get_tensor_mode(name) == mode for name in names}
        self.inputs = tuple(self._spec(name) for name in names if is_input[name])
        self.outputs = tuple(self._spec(name) for name in names if not is_input[name])
        self.profiles = profiles_of(self._engine, self.inputs)
        self._alone = threading.Lock()  # contexts may be used by threads at once, but not the engine they are made of
        self._graphs = graphs
        self.captures = graphs and package == "tensorrt"  # whether we capture graphs; TensorRT-RTX has its own way
        self._compiled = compiled
        self._profiler = profiler
        self._kernels: Any = None  # TensorRT-RTX's cache of them, which the contexts share
        self.scratch_bytes = int(self._engine.device_memory_size_v2)  # enough for any profile

    def new_context(self, *, repeated: bool = False) -> Any:
        """Return an IExecutionContext that needs `scratch_bytes` of memory set. Raises: DeviceError.

        `repeated`: it will keep its shapes from call to call.
        """
        with self._alone:
            context = self._engine.create_execution_context(self._context_options(repeated))
        if context is None:
            raise DeviceError(f"{self.package} cannot prepare this engine: {self.reason()}.")
        if self._profiler is not None:
            context.profiler = self._profiler
            context.enqueue_emits_profile = True  # at the end of each run, without being asked
        return context

    def newly_compiled(self) -> bytes:
        """Return TensorRT-RTX's kernels compiled for this engine and GPU; nothing if there are no new ones."""
        if self._kernels is None:
            return b""
        now = bytes(self._kernels.serialize())
        return b"" if now == self._compiled else now

    def stop_capturing(self, reason: str) -> None:
        """Leave CUDA graphs alone from now on, and say so once."""
        if self.captures:
            self.captures = False
            logger.warning("%s runs without CUDA graphs, which may cost speed: %s", self.package, reason)

    def _context_options(self, repeated: bool) -> Any:
        """Return what create_execution_context takes: memory is ours; TensorRT-RTX captures graphs by itself.

        It captures anew whenever the shape changes, so only a context of one shape is told to.
        https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-cuda-graphs.html
        """
        memory = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.package == "tensorrt":
            return memory
        config = self._engine.create_runtime_config()
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            # It checks version, GPU and driver, and takes nothing that does not fit.
            if self._compiled and not self._kernels.deserialize(self._compiled):
                logger.info("the kept kernels are compiled again: %s", self.reason())
        config.set_runtime_cache(self._kernels)
        config.set_execution_context_allocation_strategy(memory)
        strategies = self._trt.CudaGraphStrategy
        config.cuda_graph_strategy = (
            strategies.WHOLE_GRAPH_CAPTURE if repeated and self._graphs else strategies.DISABLED
        )
        return config

    def reason(self) -> str:
        """Return what TensorRT last gave as the cause of an error."""
        return tensorrt_log(self.package).take_errors() or "no reason given"

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(None if size == -1 else int(size) for size in self._engine.get_tensor_shape(name))
        dtype = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))).name
        return TensorSpec(name=name, dtype=dtype, shape=shape)
