"""Measuring an engine: latency and throughput by batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.config_fields import conform_fields
from ran_deploy.errors import ConfigError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.runtime.timing import Latency, measure
from ran_deploy.workflows.engines.device_choice import using_device
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.engines.loading import AUTO, build_command, expand_backends, load_engine

__all__ = ["BenchConfig", "BenchResult", "BenchRow", "TimedBundle", "bench_bundle", "require_batches", "timed_bundle"]


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure. `backends` may hold 'auto' and 'all'; no `batches` means those of each engine's profile."""

    bundle: Path
    backends: tuple[str, ...] = (AUTO,)
    batches: tuple[int, ...] = ()
    warm_up: int = 5
    seconds: float = 3.0
    threads: int = 0
    device: str | None = None  # 'cuda:1', a GPU, or 'dla:0', a DLA core
    cache_dir: Path | None = None
    require_signature: Path | None = None

    def __post_init__(self) -> None:
        conform_fields(self)
        if not self.backends:
            raise ConfigError("There is no engine to measure. Choose one with --backend.")
        if not 0 < self.seconds < 1e6:
            raise ConfigError(f"--seconds is {self.seconds:g}; expected more than 0, and less than a million.")
        if self.warm_up < 0:
            raise ConfigError(f"--warm-up is {self.warm_up}; expected 0 or more runs.")


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One engine at one batch size: latency of a batch in ms, images a second, and how steady the machine was.

    `half_pixel`: the engine enlarges masks with half-pixel sample points, and so computes something else.
    """

    backend: str
    batch: int
    runs: int
    latency_ms: Latency
    images_per_second: float
    variation: float
    noisy: bool
    half_pixel: bool


@dataclass(frozen=True, kw_only=True)
class TimedBundle:
    """What was timed and where: the bundle by its name and digest; `devices` is what each engine ran on."""

    bundle: str
    digest: str
    precision: Precision
    devices: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class BenchResult(TimedBundle):
    """A row for each engine and batch size."""

    rows: tuple[BenchRow, ...]


def bench_bundle(config: BenchConfig, report: Callable[[str], None] = lambda line: None) -> BenchResult:
    """Time the engines on the golden inputs, prepared images in and logits out; decoding is not part of it.

    Raises: BackendUnavailableError and what `load_engine` raises.
    """
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    with using_device(config.device, bundle, config.backends, config.cache_dir):
        backends = expand_backends(bundle, config.backends, config.cache_dir)
        rows = tuple(row for backend in backends for row in _bench_backend(bundle, backend, config, report))
        return BenchResult(rows=rows, **timed_bundle(bundle, backends))


def timed_bundle(bundle: Bundle, backends: Sequence[str]) -> dict[str, Any]:
    """Return the fields of `TimedBundle` for engines that have run."""
    return {
        "bundle": bundle.manifest.name,
        "digest": bundle.digest,
        "precision": bundle.manifest.precision,
        "devices": {backend: fingerprint(backend) for backend in backends},
    }


def _bench_backend(bundle: Bundle, backend: str, config: BenchConfig, report: Callable[[str], None]) -> list[BenchRow]:
    inputs = read_golden(bundle).inputs
    rows = []
    with load_engine(bundle, backend, cache_dir=config.cache_dir, threads=config.threads).predictor as predictor:
        profile = predictor.batch
        sizes = config.batches or sorted({profile.minimum, profile.optimum, profile.maximum})
        require_batches(bundle, predictor, sizes)
        for size in sizes:
            report(f"{predictor.backend}: batch {size}")
            images = np.resize(inputs, (size, *inputs.shape[1:]))
            timing = measure(
                functools.partial(predictor.infer_batch, images),
                warm_up=config.warm_up,
                repeats=10,
                min_seconds=config.seconds,
            )
            rows.append(
                BenchRow(
                    backend=predictor.backend,
                    batch=size,
                    runs=len(timing.durations_ms),
                    latency_ms=timing.latency_ms,
                    images_per_second=timing.throughput(size),
                    variation=timing.variation,
                    noisy=timing.noisy,
                    half_pixel=predictor.half_pixel,
                )
            )
    return rows


def require_batches(bundle: Bundle, predictor: Predictor, sizes: Sequence[int]) -> None:
    """Raises: ConfigError if the engine does not take a batch of each of these sizes."""
    profile = predictor.batch
    beyond = [size for size in sizes if not profile.minimum <= size <= profile.maximum]
    if beyond:
        remedy = build_command(bundle, predictor.backend, profile.taking(beyond[0]))
        raise ConfigError(
            f"The {predictor.backend} engine takes batches of {profile.minimum} to {profile.maximum}, "
            f"not {beyond[0]}. Build it for that: {remedy}."
        )
