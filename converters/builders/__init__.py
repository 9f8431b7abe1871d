"""Builders: from a dialect graph to the bytes of an engine, one vendor a file."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Protocol

from ran_deploy.config_fields import conform_fields
from ran_deploy.engine.requirements import ACCELERATOR, DLA, at_least, same_major_from
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import BatchProfile
from ran_deploy.precision import Precision

__all__ = ["BUILDERS", "BuildOptions", "Builder", "GpuOptions", "HardwareLevel", "Progress", "open_builder"]

Progress = Callable[[float], None]  # the share of a build that is done, 0..1


class HardwareLevel(str, Enum):
    """The GPUs that a TensorRT engine runs on besides the model it was built on."""

    AMPERE_PLUS = "ampere-plus"
    SAME_CAPABILITY = "same-capability"


OPTION_NAMES = {  # of fields that are not called as their options
    "workspace_bytes": "workspace",
    "compute_capabilities": "compute-capability",
    "hardware": "hardware-compatible",
    "dla_core": "device",
}


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """What only the builders for GPUs look at. `workspace_bytes` bounds the scratch memory of an engine's layers.

    `optimization_level` is TensorRT's, 0 (quick to build) to 5 (quick to run), None for its default.
    `compute_capabilities`, such as 8.6, are what a TensorRT-RTX engine holds kernels for; none is its default set.
    `hardware` None is the GPU model of the build alone. `version_compatible`: later releases of TensorRT load it too.
    `optimum_profile`: kernels for the optimal batch alone beside those for all batches, which makes the engine larger.
    `dla_core`: what can runs on that DLA core of a Jetson, the rest on its GPU; `half_pixel`: in a graph whose Resize
    it takes.
    `strip_weights`: an engine without them, which is given those of the graph whenever it is loaded.
    """

    workspace_bytes: int = 2**30
    optimization_level: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    hardware: HardwareLevel | None = None
    version_compatible: bool = False
    optimum_profile: bool = False
    dla_core: int | None = None
    half_pixel: bool = False
    strip_weights: bool = False

    def __post_init__(self) -> None:
        conform_fields(self)
        if not 2**20 <= self.workspace_bytes <= 2**40:  # more than any GPU has
            raise ConfigError(f"The workspace is {self.workspace_bytes:,} bytes; expected 1 MiB to 1 TiB.")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ConfigError(f"--optimization-level is {self.optimization_level}; expected 0 to 5.")
        if self.dla_core is not None and self.dla_core < 0:
            raise ConfigError(f"dla_core is {self.dla_core}; expected 0 or more.")

    @property
    def given(self) -> tuple[str, ...]:
        """What is not as by default, by the names on the command line."""
        changed = (each.name for each in fields(self) if getattr(self, each.name) != each.default)
        return tuple(f"--{OPTION_NAMES.get(name, name.replace('_', '-'))}" for name in changed)

    def required(self, built_on: Mapping[str, str]) -> dict[str, str]:
        """Return what an engine built so on a device with that fingerprint requires of one that loads it.

        Of versions, later ones of the same major: newer pages let TensorRT 11 load what 10 built, older ones do not.
        Sources: https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
        and the support matrices of 10.0 to 11.4.
        """
        required = dict(built_on)
        if self.version_compatible:
            required["tensorrt"] = same_major_from(built_on["tensorrt"])
        if self.hardware is not None:
            required.pop("GPU", None)
        if self.hardware is HardwareLevel.AMPERE_PLUS:
            required["compute capability"] = at_least("8.0")
        if self.dla_core is not None:  # any core: which one is chosen when the engine is loaded
            required[ACCELERATOR] = DLA
        return required


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What a builder may be told."""

    precision: Precision
    batch: BatchProfile = field(default_factory=BatchProfile)
    gpu: GpuOptions = field(default_factory=GpuOptions)

    def __post_init__(self) -> None:
        if self.gpu.half_pixel and self.gpu.dla_core is None:
            raise ConfigError(
                "--half-pixel changes what the network computes, for a DLA, which --backend tensorrt alone knows: add "
                "--device dla:0, or leave it out."
            )
        if self.gpu.strip_weights and (self.gpu.dla_core is not None or self.gpu.version_compatible):
            other = "--version-compatible" if self.gpu.dla_core is None else f"--device dla:{self.gpu.dla_core}"
            raise ConfigError(f"--strip-weights does not go with {other}: leave one of them out.")
        if self.gpu.strip_weights and self.precision is Precision.INT8:
            raise ConfigError(
                "--strip-weights is for FP32 and FP16, and this bundle is int8: for Q/DQ, TensorRT's parser makes "
                "weights of its own, which the graph cannot give back. Leave it out, or export with --precision fp16."
            )
        if self.gpu.dla_core is None:
            return
        if self.precision is not Precision.FP16:
            raise ConfigError(
                f"--device dla:{self.gpu.dla_core} is for FP16 and this bundle is {self.precision.value}: DLA takes no "
                "float32, and no INT8 that is written as Q/DQ. Export it with --precision fp16."
            )
        sizes = self.batch
        if not sizes.minimum == sizes.optimum == sizes.maximum:
            raise ConfigError(
                f"DLA takes one batch size, and this build is for {sizes.minimum}:{sizes.optimum}:{sizes.maximum}. Add "
                f"--batch {sizes.optimum}:{sizes.optimum}:{sizes.optimum}, or another."
            )


class Builder(Protocol):
    """Turns one dialect graph into one engine."""

    def build(self, graph: bytes, options: BuildOptions, progress: Progress | None = None) -> bytes:
        """Return the engine; `progress` is told of builds that take long.

        Raises: BuildError in one line if the vendor refuses the graph, ConfigError for options it does not have.
        """
        ...


BUILDERS = {
    "tensorrt": "ran_deploy.converters.builders.trt:TensorRtBuilder",
    "tensorrt-rtx": "ran_deploy.converters.builders.trt:TensorRtRtxBuilder",
    "openvino": "ran_deploy.converters.builders.ov:OpenVinoBuilder",
    "onnxruntime": "ran_deploy.converters.builders.ort:OrtBuilder",
}


def open_builder(backend: str) -> Builder:
    """Return the builder of `backend`. Raises: BackendUnavailableError if its package cannot be imported here."""
    module, name = BUILDERS[backend].split(":")
    builder: Builder = getattr(importlib.import_module(module), name)()
    return builder
