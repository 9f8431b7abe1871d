"""TensorRT and TensorRT-RTX engines: one builder for `tensorrt` 10 and 11 and `tensorrt_rtx` 1.

Precision comes from the graph alone: networks are strongly typed (TensorRT 10 by a flag; 11 and RTX know nothing else).
"""

from __future__ import annotations

from typing import Any

from ran_deploy.converters.builders import BuildOptions
from ran_deploy.errors import BackendUnavailableError, BuildError
from ran_deploy.manifest import BatchProfile
from ran_deploy.vendors import import_tensorrt, one_line, tensorrt_log

__all__ = ["TensorRtBuilder", "TensorRtRtxBuilder"]


class TensorRtBuilder:
    """Builds for the GPU of this machine: TensorRT times its kernels on it."""

    package = "tensorrt"

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

    def build(self, graph: bytes, options: BuildOptions) -> bytes:
        """Return the serialized engine. Raises: BuildError in one line, naming the node the parser refused."""
        self._log.take_errors()
        network = self._builder.create_network(_network_flags(self._trt))
        self._parse(network, graph)
        config = self._builder.create_builder_config()
        config.set_memory_pool_limit(self._trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        profile = self._profile(network, options.batch)
        if profile is not None:
            config.add_optimization_profile(profile)
        engine = self._builder.build_serialized_network(network, config)
        if engine is None:
            raise BuildError(f"{self._name} cannot build the graph: {self._log.take_errors() or 'no reason given'}.")
        return bytes(engine)

    @property
    def _name(self) -> str:
        return f"{self.package} {self._trt.__version__}"

    def _parse(self, network: Any, graph: bytes) -> None:
        parser = self._trt.OnnxParser(network, self._log.trt_logger)
        parsed = parser.parse(graph)
        if parser.num_errors:
            raise BuildError(f"{self._name} refuses the graph: {_parser_error(parser.get_error(0))}")
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


def _network_flags(trt: Any) -> int:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_error(error: Any) -> str:
    # A missing GPU echoes through every description; it is never the reason here.
    lines = [line for line in error.desc().splitlines() if "catchCudaError" not in line]
    reason = f"{error.code().name}: {one_line(' '.join(lines))}"
    return f"node {error.node_name()!r} ({error.node_operator()}): {reason}" if error.node_operator() else reason
