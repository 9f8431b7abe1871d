"""What an OpenVINO engine consists of: one line naming its precision, then OpenVINO's exported blob.

The blob does not keep the precision hint it was compiled with, and importing it without one would run an FP32 network
in BF16 wherever the CPU can.
"""

from __future__ import annotations

from ran_deploy.errors import EngineMismatchError

__all__ = ["PRECISION_HINTS", "pack_openvino_engine", "unpack_openvino_engine"]

PRECISION_HINTS = ("f32", "bf16")
_MAGIC = b"ran-deploy openvino engine 1 "


def pack_openvino_engine(blob: bytes, precision_hint: str) -> bytes:
    """Return the engine made of `blob` and the hint it was compiled with."""
    assert precision_hint in PRECISION_HINTS
    return _MAGIC + precision_hint.encode() + b"\n" + blob


def unpack_openvino_engine(engine: bytes) -> tuple[bytes, str]:
    """Return blob and precision hint. Raises: EngineMismatchError if `engine` is anything else."""
    for hint in PRECISION_HINTS:
        header = _MAGIC + hint.encode() + b"\n"
        if engine.startswith(header):
            return engine[len(header) :], hint
    raise EngineMismatchError(
        f"This is no OpenVINO engine of ran-deploy (it begins with {engine[:16]!r}). Build it again with ran-build."
    )
