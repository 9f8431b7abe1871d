"""TensorRT and TensorRT-RTX on an NVIDIA GPU: one runner for both packages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from ran_deploy.engine.kept_file import KeptFile
from ran_deploy.engine.padding import padded_size
from ran_deploy.engine.requirements import ACCELERATOR, DLA
from ran_deploy.engine.traits import NO_TRAITS, EngineTraits
from ran_deploy.errors import BackendUnavailableError, DeviceError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends import trt_dla
from ran_deploy.runtime.backends.host import host_platform
from ran_deploy.runtime.backends.slots import Slots
from ran_deploy.runtime.backends.trt_engine import TensorRtEngine
from ran_deploy.runtime.backends.trt_profiles import tightest
from ran_deploy.runtime.backends.trt_slot import REPEATED, Slot
from ran_deploy.vendors import import_tensorrt

__all__ = ["TRT_RUNNERS", "TensorRtRtxRunner", "TensorRtRunner"]

logger = logging.getLogger(__name__)

SLOTS = 2  # while one batch computes, another one's copies and the host's work are done


class TensorRtRunner:
    """An engine with `slots` for so many batches at once, on the GPU that is current for the thread that opens it.

    It is loaded on that thread's current DLA core, too, where there is one: see `trt_dla`.

    Any thread may call, whatever its own device is. A slot takes memory when so many threads call at once.
    Without `graphs` no CUDA graph is captured; else the first `repeated` batch sizes that come again have one, and
    those that others are padded to. `mapped`: the engine works in the host's memory, without copies; as a rule it
    does so on integrated GPUs. `kernels`, of TensorRT-RTX, is written when the runner is closed. `profiler` is an
    IProfiler that each run reports its layers to.
    """

    package = "tensorrt"

    def __init__(
        self,
        engine: bytes,
        *,
        threads: int = 0,
        traits: EngineTraits = NO_TRAITS,
        kernels: KeptFile | None = None,
        slots: int = SLOTS,
        graphs: bool = True,
        repeated: int = REPEATED,
        mapped: bool | None = None,
        profiler: Any = None,
    ) -> None:
        del threads  # the work is the GPU's
        self.require()
        self._device = cuda.current_index()
        in_place = cuda.current_device().integrated if mapped is None else mapped
        self._kernels = kernels
        with cuda.on_device(self._device):
            compiled = kernels.read() if kernels is not None else b""
            loaded = TensorRtEngine(
                self.package,
                engine,
                traits,
                graphs=graphs,
                compiled=compiled,
                dla_core=self._dla_core(),
                profiler=profiler,
            )
            self._engine: TensorRtEngine | None = loaded
            self.inputs, self.outputs, self._profiles = loaded.inputs, loaded.outputs, loaded.profiles
            self._padding = traits.padding
            padded_sizes = frozenset(each.size for each in traits.padding)
            self._slots = Slots(
                lambda: Slot(loaded, mapped=in_place, repeated=repeated, padded_sizes=padded_sizes), slots
            )

    @classmethod
    def require(cls) -> None:
        """Raises: BackendUnavailableError if the package, the CUDA binding, the driver or a GPU is missing."""
        import_tensorrt(cls.package)
        cuda.require_gpu()

    @classmethod
    def fingerprint(cls) -> dict[str, str]:
        """Return version, platform and, where there is one, the GPU: kernels were chosen on that very device.

        The accelerator is named where a DLA core is current, whatever its number: each loads the same engines.
        """
        parts = _version_and_platform(cls.package)
        if cls._dla_core() is not None:
            parts[ACCELERATOR] = DLA
        try:
            cuda.require_gpu()
        except BackendUnavailableError:
            return parts
        device = cuda.current_device()
        return {**parts, "GPU": device.name, "compute capability": device.compute_capability}

    @classmethod
    def _dla_core(cls) -> int | None:
        return trt_dla.current_core()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch. Raises: ShapeError for a batch outside every profile, DeviceError if the GPU fails."""
        arrays = {spec.name: feeds[spec.name] for spec in self.inputs}
        shapes = {name: (padded_size(self._padding, len(array)), *array.shape[1:]) for name, array in arrays.items()}
        profile = tightest(self._profiles, shapes)
        with cuda.on_device(self._device), self._slots.taken() as slot:
            return slot.infer(arrays, shapes, profile)

    def close(self) -> None:
        """Release the device's memory after the calls under way, and the engine; a second call does nothing.

        A GPU that fails meanwhile is a line in the log: what failed before matters more.
        """
        try:
            with cuda.on_device(self._device):
                self._slots.close()
                if self._kernels is not None and self._engine and (compiled := self._engine.newly_compiled()):
                    self._kernels.update(lambda earlier: compiled)
                self._engine = None  # the last reference: it goes while its device is current
        except DeviceError as exc:
            logger.warning("closing the engine: %s", exc)


class TensorRtRtxRunner(TensorRtRunner):
    """Loading finishes the engine for this GPU, so it is bound to none."""

    package = "tensorrt_rtx"

    @classmethod
    def fingerprint(cls) -> dict[str, str]:
        """Return version and platform; works without a GPU."""
        return _version_and_platform(cls.package)

    @classmethod
    def _dla_core(cls) -> int | None:
        return None  # it knows no DLA


TRT_RUNNERS = {"tensorrt": TensorRtRunner, "tensorrt-rtx": TensorRtRtxRunner}


def _version_and_platform(package: str) -> dict[str, str]:
    return {package: import_tensorrt(package).__version__, "platform": host_platform()}
