"""Where an engine's time goes: layer by layer, and summed up by the parts of a Residual Attention Network."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.converters.builders import GpuOptions
from ran_deploy.converters.builders.engine_layers import layers_from_inspector
from ran_deploy.converters.builders.trt_inspector import inspect_engine
from ran_deploy.engine.cache import CachedEngine
from ran_deploy.errors import ConfigError, RanDeployError
from ran_deploy.network_parts import Part
from ran_deploy.runtime.predictor import INPUT, Predictor
from ran_deploy.runtime.profiles import Workload, profile_engine
from ran_deploy.runtime.profiles.layer_time import LayerTime
from ran_deploy.runtime.timing import Latency, Timing, measure
from ran_deploy.workflows.bench import BenchConfig, TimedBundle, require_batches, timed_bundle
from ran_deploy.workflows.engines.device_choice import using_device
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.engines.loading import BUILT_ON_REQUEST, engine_graph, expand_backends, load_engine

if TYPE_CHECKING:
    from ran_deploy.converters.attribution import Attribution

__all__ = ["EngineProfile", "Layer", "ModuleTotal", "PartTotal", "ProfileResult", "profile_bundle"]

logger = logging.getLogger(__name__)

FEWEST_RUNS, MOST_RUNS = 10, 100  # ONNX Runtime keeps an event for each kernel of each run


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of an engine, `ms` a run: `name`, `kind` and `execution` are the vendor's words.

    `nodes` are those of the bundle's graph it does, `path` the module of the network they come from, "" where unknown.
    `part` is what it is counted for, None without the graph; `module` the attention module it is in, "" outside.
    `multiply_adds` are those of its convolutions and matrix products for one image.
    """

    name: str
    kind: str
    execution: str
    nodes: tuple[str, ...]
    path: str
    part: Part | None
    module: str
    multiply_adds: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class PartTotal:
    """The layers of one part of the network together; its shares, 0..1, are of the time in all layers and of all
    multiply-adds.
    """

    part: Part
    ms: float
    share: float
    multiply_adds_share: float
    layers: int


@dataclass(frozen=True, kw_only=True)
class ModuleTotal:
    """The time in one attention module, ms; `units_ms` in its units before the branches and behind the gate."""

    module: str
    trunk_ms: float
    mask_ms: float
    gate_ms: float
    units_ms: float


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """One engine at one batch size; layers in the order they run.

    `unprofiled_ms` and `profiled_ms` are latencies of whole batches, which profiling makes slower; `layers_ms` is the
    sum of all layers, each the `statistic` of its times in `runs` runs. `parts_missing` says why there are no parts.
    """

    backend: str
    batch: int
    runs: int
    statistic: str
    unprofiled_ms: Latency
    profiled_ms: Latency
    noisy: bool
    layers_ms: float
    parts: tuple[PartTotal, ...]
    modules: tuple[ModuleTotal, ...]
    parts_missing: str | None
    layers: tuple[Layer, ...]


@dataclass(frozen=True, kw_only=True)
class ProfileResult(TimedBundle):
    """A profile of each engine."""

    profiles: tuple[EngineProfile, ...]


def profile_bundle(config: BenchConfig, report: Callable[[str], None] = lambda line: None) -> ProfileResult:
    """Profile the engines on the golden inputs, at one batch size: the one each is optimised for, if none is given.

    Raises: ConfigError for several sizes; BackendUnavailableError and what `load_engine` raises.
    """
    if len(config.batches) > 1:
        raise ConfigError(
            f"A profile is of one batch size; found {', '.join(map(str, config.batches))}. Give --batch once."
        )
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    with using_device(config.device, bundle, config.backends, config.cache_dir):
        backends = expand_backends(bundle, config.backends, config.cache_dir)
        profiles = tuple(_profile_backend(bundle, backend, config, report) for backend in backends)
        return ProfileResult(profiles=profiles, **timed_bundle(bundle, backends))


def _profile_backend(bundle: Bundle, backend: str, config: BenchConfig, report: Callable[[str], None]) -> EngineProfile:
    loaded = load_engine(bundle, backend, cache_dir=config.cache_dir, threads=config.threads)
    with loaded.predictor as predictor:
        size = config.batches[0] if config.batches else predictor.batch.optimum
        require_batches(bundle, predictor, [size])
        inputs = read_golden(bundle).inputs
        feeds = {INPUT: np.resize(inputs, (size, *inputs.shape[1:]))}
        report(f"{backend}: batch {size}")
        before = _unprofiled(predictor, feeds, config)
        runs = int(np.clip(config.seconds * 1000 / before.latency_ms.p50, FEWEST_RUNS, MOST_RUNS))
        profile = profile_engine(
            backend,
            Workload(
                engine=loaded.engine.data,
                feeds=feeds,
                runs=runs,
                warm_up=config.warm_up,
                threads=config.threads,
                traits=loaded.engine.traits,
            ),
        )
        unprofiled = Timing((*before.durations_ms, *_unprofiled(predictor, feeds, config).durations_ms))
    gpu = GpuOptions(half_pixel=loaded.engine.half_pixel)
    layers, missing = _placed(bundle, backend, gpu, inspected(backend, loaded.engine, profile.layers))
    return EngineProfile(
        backend=backend,
        batch=size,
        runs=runs,
        statistic=profile.statistic,
        unprofiled_ms=unprofiled.latency_ms,
        profiled_ms=profile.timing.latency_ms,
        noisy=unprofiled.noisy or profile.timing.noisy,
        layers_ms=sum(layer.ms for layer in layers),
        parts=part_totals(layers),
        modules=module_totals(layers),
        parts_missing=missing,
        layers=layers,
    )


def _unprofiled(predictor: Predictor, feeds: Mapping[str, np.ndarray], config: BenchConfig) -> Timing:
    """Time whole batches; done before the profile and again behind it, as other load comes and goes."""
    infer = functools.partial(predictor.runner.infer, feeds)
    return measure(infer, warm_up=config.warm_up, repeats=FEWEST_RUNS, min_seconds=config.seconds / 2)


def inspected(backend: str, engine: CachedEngine, times: Sequence[LayerTime]) -> Sequence[LayerTime]:
    """Return the layers of a TensorRT engine with what its inspector tells of them; others as they are."""
    if backend not in BUILT_ON_REQUEST:
        return times
    try:
        text = inspect_engine(backend.replace("-", "_"), engine.data, engine.traits)
        told = {layer.name: layer for layer in layers_from_inspector(text).layers}
    except RanDeployError as exc:  # the names say most of it
        logger.warning("%s", exc)
        return times
    return [
        replace(time, kind=layer.kind, execution=layer.precision or "", origins=layer.origins, converts=layer.converts)
        if (layer := told.get(time.name)) is not None
        else time
        for time in times
    ]


def _placed(
    bundle: Bundle, backend: str, gpu: GpuOptions, times: Sequence[LayerTime]
) -> tuple[tuple[Layer, ...], str | None]:
    """Return the layers with their parts, or why those are missing."""
    try:
        from ran_deploy.converters.attribution import attribute
        from ran_deploy.converters.graph import model_from_bytes
    except ImportError as exc:
        missing = f"the graph cannot be read ({exc}): pip install 'ran-deploy[export]'"
        return tuple(_layer(time) for time in times), missing
    graph = model_from_bytes(engine_graph(bundle, backend, gpu)).graph
    layers = []
    for time, found in zip(times, attribute(graph, [time.origins for time in times]), strict=True):
        if found.place is not None:
            part = found.place.part
        elif found.carries or (time.converts and not found.nodes):
            part = Part.CONVERSIONS
        else:
            part = Part.SEVERAL if found.nodes else Part.UNKNOWN
        layers.append(_layer(time, found, part))
    return tuple(layers), None


def _layer(time: LayerTime, found: Attribution | None = None, part: Part | None = None) -> Layer:
    return Layer(
        name=time.name,
        kind=time.kind,
        execution=time.execution,
        nodes=found.nodes if found else (),
        path=found.path if found else "",
        part=part,
        module=found.place.module if found and found.place else "",
        multiply_adds=found.multiply_adds if found else 0,
        ms=time.ms,
    )


def part_totals(layers: Sequence[Layer]) -> tuple[PartTotal, ...]:
    """Return the sums of the layers by part, the longest first; their `ms` add up to that of all layers."""
    whole_ms = sum(layer.ms for layer in layers)
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    groups: dict[Part, list[Layer]] = {}
    for layer in layers:
        if layer.part is not None:
            groups.setdefault(layer.part, []).append(layer)
    totals = [
        PartTotal(
            part=part,
            ms=sum(layer.ms for layer in group),
            share=_share(sum(layer.ms for layer in group), whole_ms),
            multiply_adds_share=_share(sum(layer.multiply_adds for layer in group), multiply_adds),
            layers=len(group),
        )
        for part, group in groups.items()
    ]
    return tuple(sorted(totals, key=lambda total: -total.ms))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def module_totals(layers: Sequence[Layer]) -> tuple[ModuleTotal, ...]:
    """Return the sums of each attention module's layers, in the order of the first of them."""
    modules = dict.fromkeys(layer.module for layer in layers if layer.module)

    def ms(module: str, part: Part) -> float:
        return sum(layer.ms for layer in layers if (layer.module, layer.part) == (module, part))

    return tuple(
        ModuleTotal(
            module=module,
            trunk_ms=ms(module, Part.TRUNK),
            mask_ms=ms(module, Part.MASK),
            gate_ms=ms(module, Part.GATE),
            units_ms=ms(module, Part.UNITS),
        )
        for module in modules
    )
