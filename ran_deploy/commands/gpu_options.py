"""What the builders of TensorRT's engines are told, as options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ran_deploy.converters.builders import GpuOptions

__all__ = ["compatibility_options", "gpu_build_options", "gpu_options"]

# The same two at ran-build and ran-export, whose engines go into the bundle and so to other devices.
_COMPATIBILITY = (
    click.option(
        "--hardware-compatible",
        type=click.Choice(["ampere-plus", "same-capability"]),
        help="TensorRT: an engine for further GPU models too, which may be slower.",
    ),
    click.option(
        "--version-compatible",
        is_flag=True,
        help="TensorRT: for later releases of this major version too; may be slower, and brings its own runtime.",
    ),
)
_OTHERS = (
    click.option(
        "--half-pixel",
        is_flag=True,
        help="For DLA: enlarge masks as it can, which changes the outputs: measure the accuracy.",
    ),
    click.option(
        "--optimum-profile",
        is_flag=True,
        help="TensorRT: also kernels for just the OPT of --batch; a larger engine, a longer build.",
    ),
    click.option(
        "--strip-weights",
        is_flag=True,
        help="TensorRT, FP32 and FP16: an engine without weights, which the bundle's graph gives it at each load.",
    ),
    click.option(
        "--workspace", type=click.IntRange(min=1), metavar="MIB", help="TensorRT: scratch memory.  [default: 1024]"
    ),
    click.option(
        "--optimization-level",
        type=click.IntRange(0, 5),
        metavar="N",
        help="TensorRT: 0 builds quickest, 5 runs quickest.  [default: TensorRT's own, 3]",
    ),
    click.option(
        "--compute-capability",
        multiple=True,
        metavar="X.Y",
        help="TensorRT-RTX: GPUs the engine is for, such as 8.9; repeatable.  [default: 8.0 and later]",
    ),
)


def compatibility_options() -> Callable[[Any], Any]:
    """Return --hardware-compatible and --version-compatible."""
    return _together(_COMPATIBILITY)


def gpu_build_options() -> Callable[[Any], Any]:
    """Return all options of a build for a GPU; `gpu_options` takes what they give."""
    return _together((*_OTHERS, *_COMPATIBILITY))


def gpu_options(
    *,
    hardware_compatible: str | None,
    version_compatible: bool,
    workspace: int | None = None,
    optimization_level: int | None = None,
    compute_capability: tuple[str, ...] = (),
    optimum_profile: bool = False,
    half_pixel: bool = False,
    strip_weights: bool = False,
) -> GpuOptions | None:
    """Return what the builder of a GPU engine is told; None where nothing was asked for."""
    from ran_deploy.converters.builders import GpuOptions, HardwareLevel

    asked = {
        "workspace_bytes": None if workspace is None else workspace * 2**20,
        "optimization_level": optimization_level,
        "compute_capabilities": compute_capability or None,
        "hardware": None if hardware_compatible is None else HardwareLevel(hardware_compatible),
        "version_compatible": version_compatible or None,
        "optimum_profile": optimum_profile or None,
        "half_pixel": half_pixel or None,
        "strip_weights": strip_weights or None,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return GpuOptions(**given) if given else None


def _together(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
