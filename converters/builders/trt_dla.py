"""NVIDIA's deep learning accelerator, DLA, in a TensorRT build: what is set for it, and which layers it takes.

Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-runtime-configuration.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ran_deploy.vendors import require_dla_core

__all__ = ["DlaLayers", "ask_dla", "fix_batch", "use_dla"]


@dataclass(frozen=True, kw_only=True)
class DlaLayers:
    """The layers of one kind, TensorRT's word: how many run on DLA and on the GPU, and why, as TensorRT says it."""

    kind: str
    on_dla: int
    on_gpu: int
    reasons: tuple[str, ...]


def use_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    """Have every layer that can run on a DLA core, the others on the GPU. Raises: BackendUnavailableError."""
    require_dla_core(trt, builder.num_DLA_cores, core)
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def fix_batch(network: Any, size: int) -> None:
    """Give each input that batch size in place of a dynamic one, which DLA does not take."""
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        tensor.shape = tuple(size if length == -1 else length for length in tensor.shape)


def ask_dla(network: Any, config: Any, take_warnings: Callable[[], tuple[str, ...]]) -> tuple[DlaLayers, ...]:
    """Return TensorRT's own answer for every layer that computes, kind by kind, in the order of the network.

    `take_warnings` gives what TensorRT warned of since the last call: its reasons.
    """
    found: dict[str, tuple[int, int, dict[str, None]]] = {}
    take_warnings()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        if kind == "CONSTANT":
            continue
        on_dla = bool(config.can_run_on_DLA(layer))
        taken, left, reasons = found.get(kind, (0, 0, {}))
        reasons |= dict.fromkeys(warning.replace(layer.name, "the layer") for warning in take_warnings())
        found[kind] = (taken + on_dla, left + (not on_dla), reasons)
    return tuple(
        DlaLayers(kind=kind, on_dla=taken, on_gpu=left, reasons=tuple(reasons))
        for kind, (taken, left, reasons) in found.items()
    )
