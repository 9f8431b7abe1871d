"""What an engine of TensorRT has to be loaded with, beside its bytes."""

from __future__ import annotations

from dataclasses import dataclass

from ran_deploy.engine.padding import Padding

__all__ = ["NO_TRAITS", "EngineTraits"]


@dataclass(frozen=True, kw_only=True)
class EngineTraits:
    """Engines of other vendors have none of these.

    `host_code`: it may bring the vendor's runtime as a library of its own, as version-compatible ones do.
    `refit_from` is the ONNX graph that an engine without weights gets them from; None for one that has its own.
    `padding` says which batches are padded to a size that runs as a CUDA graph.
    """

    host_code: bool = False
    refit_from: bytes | None = None
    padding: tuple[Padding, ...] = ()


NO_TRAITS = EngineTraits()
