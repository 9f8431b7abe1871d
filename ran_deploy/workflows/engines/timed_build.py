"""Building an engine from a graph with what earlier builds on this device measured."""

from __future__ import annotations

from pathlib import Path

from ran_deploy.converters.builders import BuildOptions, Progress, open_builder
from ran_deploy.converters.builders.trt import TensorRtBuilder
from ran_deploy.engine.cache import CachedEngine, default_cache_dir
from ran_deploy.engine.device_files import timing_file
from ran_deploy.runtime.backends import fingerprint

__all__ = ["engine_from_graph"]


def engine_from_graph(
    backend: str,
    graph: bytes,
    options: BuildOptions,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> CachedEngine:
    """Return the engine of a dialect's graph, neither proven nor kept.

    Kernel timings, where the vendor has them, are read from the cache, used and kept.
    Raises: BuildError, BackendUnavailableError, ConfigError.
    """
    data = _built(backend, graph, options, cache_dir or default_cache_dir(), progress)
    required = options.gpu.required(fingerprint(backend))
    return CachedEngine(
        data=data,
        batch=options.batch,
        required=required,
        proven=False,
        refit_from=graph if options.gpu.strip_weights else None,
        half_pixel=options.gpu.half_pixel,
    )


def _built(backend: str, graph: bytes, options: BuildOptions, cache_dir: Path, progress: Progress | None) -> bytes:
    builder = open_builder(backend)
    if not isinstance(builder, TensorRtBuilder) or builder.timings is None:
        return builder.build(graph, options, progress)
    file = timing_file(cache_dir, fingerprint(backend))
    builder.timings = earlier = file.read()
    engine = builder.build(graph, options, progress)

    def merged(now: bytes) -> bytes:
        if now != earlier:
            builder.merge_timings(now)
        return builder.timings or b""

    file.update(merged)
    return engine
