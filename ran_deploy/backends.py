"""The engines a bundle can run on, and which graph dialect each of them reads."""

from __future__ import annotations

from ran_deploy.errors import ConfigError

__all__ = ["BACKENDS", "dialect_of"]

# backend -> dialect: both TensorRT packages read one graph.
BACKENDS = {
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt",
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
}


def dialect_of(backend: str) -> str:
    """Return the dialect `backend` reads. Raises: ConfigError for an unknown backend."""
    if backend not in BACKENDS:
        raise ConfigError(f"Unknown backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    return BACKENDS[backend]
