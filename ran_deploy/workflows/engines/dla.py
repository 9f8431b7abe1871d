"""Builds for the DLA of a Jetson: the graph it can take more of, and what it takes."""

from __future__ import annotations

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.builders.trt import TensorRtBuilder
from ran_deploy.converters.builders.trt_dla import DlaLayers
from ran_deploy.errors import BackendUnavailableError

__all__ = ["dla_layers", "half_pixel_graph"]


def half_pixel_graph(graph: bytes) -> bytes:
    """Return a dialect's graph with half-pixel sample points where corners were aligned.

    Raises: BackendUnavailableError where onnx is not installed; ConversionError.
    """
    try:
        from ran_deploy.converters.graph import model_bytes, model_from_bytes
        from ran_deploy.converters.half_pixel import resize_by_half_pixels
    except ImportError as exc:
        raise BackendUnavailableError(
            f"--half-pixel rewrites the graph, and {exc.name} is missing: pip install onnx onnx-ir, or leave it out."
        ) from exc
    model = model_from_bytes(graph)
    resize_by_half_pixels(model)
    return model_bytes(model)


def dla_layers(backend: str, graph: bytes, options: BuildOptions) -> tuple[DlaLayers, ...]:
    """Return which layers a build gives to DLA, which to the GPU, and why. Raises: BuildError, ConfigError and more."""
    builder = open_builder(backend)
    assert isinstance(builder, TensorRtBuilder)
    return builder.dla_layers(graph, options)
