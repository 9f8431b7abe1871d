"""TensorRT and TensorRT-RTX engines: one builder for `tensorrt` 10 and 11 and `tensorrt_rtx` 1.

Precision comes from the graph alone: networks are strongly typed (TensorRT 10 by a flag; 11 and RTX know nothing else).
"""

from __future__ import annotations

import logging
from typing import Any

from ran_deploy.converters.builders import BuildOptions, GpuOptions, HardwareLevel, Progress
from ran_deploy.converters.builders.phases import Phases
from ran_deploy.converters.builders.trt_dla import DlaLayers, ask_dla, fix_batch, use_dla
from ran_deploy.errors import BackendUnavailableError, BuildError, ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.vendors import import_tensorrt, one_line, parser_error, tensorrt_log

__all__ = ["TensorRtBuilder", "TensorRtRtxBuilder"]

_logger = logging.getLogger(__name__)

HARDWARE_LEVELS = {  # the second came after TensorRT 10.3
    HardwareLevel.AMPERE_PLUS: "AMPERE_PLUS",
    HardwareLevel.SAME_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
}


class TensorRtBuilder:
    """Builds for the GPU of this machine: TensorRT times its kernels on it.

    `timings` are what it measured in earlier builds on this device, serialized; a build adds its own.
    """

    package = "tensorrt"
    timings: bytes | None = b""

    def __init__(self) -> None:
        self._trt = import_tensorrt(self.package)
        self._log = tensorrt_log(self.package)
        self._log.take_errors()
        try:
            self._builder = self._trt.Builder(self._log.trt_logger)
        except Exception as exc:  # without a GPU the binding's factory gives None, which surfaces as a TypeError
            reason = self._log.take_errors() or one_line(exc)
            raise BackendUnavailableError(
                f"{self.package} {self._trt.__version__} cannot start here: {reason}. "
                "It builds only on a machine with an NVIDIA GPU and driver; tensorrt-rtx builds without."
            ) from exc

    def build(self, graph: bytes, options: BuildOptions, progress: Progress | None = None) -> bytes:
        """Return the serialized engine.

        Raises: BuildError in one line, naming the node the parser refused; ConfigError for a compute capability.
        """
        self._log.take_errors()
        network, config = self._prepared(graph, options)
        cache = None if self.timings is None else self._timing_cache(config, self.timings)
        monitor = _monitor(self._trt, progress) if progress is not None else None
        if monitor is not None:
            config.progress_monitor = monitor
        for batch in _profile_batches(options):
            profile = self._profile(network, batch)
            if profile is not None:
                config.add_optimization_profile(profile)
        engine = self._builder.build_serialized_network(network, config)
        if monitor is not None and monitor.raised is not None:
            raise monitor.raised
        if engine is None:
            raise BuildError(f"{self._name} cannot build the graph: {self._log.take_errors() or 'no reason given'}.")
        if cache is not None:
            self.timings = bytes(cache.serialize())
        return bytes(engine)

    def dla_layers(self, graph: bytes, options: BuildOptions) -> tuple[DlaLayers, ...]:
        """Return which layers of a graph a build for DLA gives to it, which to the GPU, and why.

        Raises: BuildError, and BackendUnavailableError where there is no DLA.
        """
        network, config = self._prepared(graph, options)
        return ask_dla(network, config, self._log.take_warnings)

    def merge_timings(self, other: bytes) -> None:
        """Add what another process measured on this device meanwhile; where both measured a kernel, ours stays."""
        assert self.timings is not None
        if other:
            config = self._builder.create_builder_config()
            cache = config.create_timing_cache(self.timings)
            cache.combine(config.create_timing_cache(other), False)
            self.timings = bytes(cache.serialize())

    @property
    def _name(self) -> str:
        return f"{self.package} {self._trt.__version__}"

    def _prepared(self, graph: bytes, options: BuildOptions) -> tuple[Any, Any]:
        """Return the network and the configuration, without profiles."""
        network = self._builder.create_network(_network_flags(self._trt))
        self._parse(network, graph)
        if options.gpu.dla_core is not None:
            fix_batch(network, options.batch.optimum)
        return network, self._configured(options.gpu)

    def _configured(self, options: GpuOptions) -> Any:
        config = self._builder.create_builder_config()
        # So that its inspector can tell types and kernels of the layers; engines get no larger (TensorRT-RTX 1.7.1).
        config.profiling_verbosity = self._trt.ProfilingVerbosity.DETAILED
        config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        if options.compute_capabilities:
            self._target(config, options.compute_capabilities)
        if options.hardware is not None or options.version_compatible:
            self._widen(config, options)
        if options.dla_core is not None:
            self._accelerate(config, options.dla_core)
        if options.strip_weights:
            self._strip(config)
        return config

    def _timing_cache(self, config: Any, timings: bytes) -> Any:
        """Return the cache of a build, which the caller keeps until it is built: TensorRT does not own it."""
        cache = config.create_timing_cache(timings)
        if config.set_timing_cache(cache, False):
            return cache
        _logger.warning("%s refuses the timings of earlier builds and measures anew", self._name)
        self._log.take_errors()
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
        return cache

    def _target(self, config: Any, capabilities: tuple[str, ...]) -> None:
        raise ConfigError(
            f"{self.package} builds for the GPU of this machine alone. Leave --compute-capability "
            f"{' '.join(capabilities)} out, or choose --backend tensorrt-rtx."
        )

    def _widen(self, config: Any, options: GpuOptions) -> None:
        """Have the engine run on further GPUs and versions. Raises: ConfigError where this release cannot."""
        if options.hardware is not None:
            levels, name = self._trt.HardwareCompatibilityLevel.__members__, HARDWARE_LEVELS[options.hardware]
            if name not in levels:
                raise ConfigError(
                    f"{self._name} does not build for {options.hardware.value}; it has "
                    f"{', '.join(known.value for known, each in HARDWARE_LEVELS.items() if each in levels)}."
                )
            config.hardware_compatibility_level = levels[name]
        if options.version_compatible:
            config.set_flag(self._trt.BuilderFlag.VERSION_COMPATIBLE)

    def _accelerate(self, config: Any, core: int) -> None:
        use_dla(self._trt, self._builder, config, core)

    def _strip(self, config: Any) -> None:
        """Leave the weights out, for an engine that gets the very same ones back whenever it is loaded.

        For those NVIDIA promises the speed of an engine with weights; the general REFIT may lose a bias in 11.3.
        https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/inference-library/refitting-engines.html
        """
        config.set_flag(self._trt.BuilderFlag.STRIP_PLAN)
        config.set_flag(self._trt.BuilderFlag.REFIT_IDENTICAL)

    def _parse(self, network: Any, graph: bytes) -> None:
        parser = self._trt.OnnxParser(network, self._log.trt_logger)
        parsed = parser.parse(graph)
        if parser.num_errors:
            raise BuildError(f"{self._name} refuses the graph: {parser_error(parser.get_error(0))}")
        # The parser accepts text and empty files as graphs of nothing.
        if not parsed or network.num_inputs == 0 or network.num_outputs == 0:
            raise BuildError(f"{self._name} finds no network in the graph ({len(graph)} bytes). Export it again.")

    def _profile(self, network: Any, batch: BatchProfile) -> Any:
        """Return the profile with the batch sizes the engine must take; None for a graph of one batch size."""
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
        if not dynamic:
            return None
        profile = self._builder.create_optimization_profile()
        for tensor in dynamic:
            first, *rest = tuple(tensor.shape)
            if first != -1 or -1 in rest:
                raise BuildError(f"Input {tensor.name!r} has shape {(first, *rest)}; only the batch may be dynamic.")
            profile.set_shape(tensor.name, *((size, *rest) for size in (batch.minimum, batch.optimum, batch.maximum)))
        return profile


class TensorRtRtxBuilder(TensorRtBuilder):
    """Builds without a GPU; the engine is finished for the GPU it is loaded on, any of compute capability 8.0 up."""

    package = "tensorrt_rtx"
    timings = None  # deprecated there since 1.2: its builder measures nothing

    def _target(self, config: Any, capabilities: tuple[str, ...]) -> None:
        known = _compute_capabilities(self._trt)
        unknown = [capability for capability in capabilities if capability not in known]
        if unknown:
            raise ConfigError(
                f"{self._name} has no kernels for compute capability {unknown[0]}; choose of {', '.join(known)}."
            )
        config.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            config.set_compute_capability(known[capability], index)

    def _widen(self, config: Any, options: GpuOptions) -> None:
        del config, options
        raise ConfigError(
            f"{self.package} has engines for one version of itself, and for the GPUs of --compute-capability. Leave "
            "--hardware-compatible and --version-compatible out, or choose --backend tensorrt."
        )

    def _accelerate(self, config: Any, core: int) -> None:
        del config
        raise ConfigError(f"{self.package} knows no DLA. Leave --device dla:{core} out, or choose --backend tensorrt.")

    def _strip(self, config: Any) -> None:
        # 1.7.1 wants a GPU for it, and tells less of weights that are missing: pytorch/TensorRT pull request 4198.
        del config
        raise ConfigError(
            f"Engines of {self._name} keep their weights. Leave --strip-weights out, or choose --backend tensorrt."
        )


def _profile_batches(options: BuildOptions) -> tuple[BatchProfile, ...]:
    """Return the batches of each profile: all of them first, which the engine is inspected with."""
    optimum = BatchProfile(minimum=options.batch.optimum, optimum=options.batch.optimum, maximum=options.batch.optimum)
    if not options.gpu.optimum_profile or options.batch == optimum:
        return (options.batch,)
    return (options.batch, optimum)


def _compute_capabilities(trt: Any) -> dict[str, Any]:
    """Return what an engine can be built for: '8.6' for SM86."""
    found = {name: value for name, value in trt.ComputeCapability.__members__.items() if name[2:].isdecimal()}
    return {
        f"{name[2:-1]}.{name[-1]}": value for name, value in sorted(found.items(), key=lambda item: int(item[0][2:]))
    }


def _monitor(trt: Any, progress: Progress) -> Any:
    """Return TensorRT's progress monitor that tells `progress`; what that raises ends the build and is in `raised`.

    An exception must not pass through TensorRT's own frames.
    """

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.raised: BaseException | None = None
            self.phases = Phases()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.phases.start(name, parent, steps)

        def step_complete(self, name: str, step: int) -> bool:
            try:
                progress(self.phases.complete(name, step))
            except BaseException as exc:  # an interrupt too
                self.raised = exc
            return self.raised is None

        def phase_finish(self, name: str) -> None:
            self.phases.finish(name)

    return Monitor()


def _network_flags(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)
