"""Whether a bundle would load on this device, and what was read in its graphs for a judgement about another one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle
from ran_deploy.engine.padding import Padding
from ran_deploy.errors import RanDeployError
from ran_deploy.runtime import cuda
from ran_deploy.runtime.backends import fingerprint, trt_dla, unavailable_reason
from ran_deploy.runtime.backends.host import cpu_instructions, host_platform
from ran_deploy.targets import Target
from ran_deploy.workflows.engines.loading import DLA_BACKENDS, build_command, find_engine, runnable_backends
from ran_deploy.workflows.exporting.versions import tool_versions
from ran_deploy.workflows.preflight import BackendVerdict, GraphFacts, judge

__all__ = ["BackendState", "DeviceReport", "State", "device_report", "exit_status", "preflight"]

WOULD_LOAD, NO_ENGINE_FITS, NOTHING_RUNS = 0, 3, 2  # the exit statuses of README


class State(str, Enum):
    """How far a backend of the bundle is from running here."""

    PROVEN = "proven"
    UNPROVEN = "not yet proven"  # it is when it is first loaded
    MADE_ON_LOAD = "made on load"
    NO_ENGINE = "no engine"
    UNAVAILABLE = "unavailable"

    @property
    def loads(self) -> bool:
        """Whether ran-infer would start with it."""
        return self in (State.PROVEN, State.UNPROVEN, State.MADE_ON_LOAD)


@dataclass(frozen=True, kw_only=True)
class BackendState:
    """One backend of the bundle on this device; `next_step` is a command, None where nothing has to be done.

    `stripped`: its engine has no weights, and gets those of the bundle's graph whenever it is loaded. `half_pixel`: it
    enlarges masks with half-pixel sample points, and so computes something else. `padding` says which batches are
    padded.
    """

    backend: str
    state: State
    reason: str | None = None
    fingerprint: dict[str, str] | None = None
    next_step: str | None = None
    stripped: bool = False
    half_pixel: bool = False
    padding: tuple[Padding, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """This device and every backend of the bundle, best first.

    `dla` is the engine that only --device dla:N uses; None where there is none, or no DLA.
    """

    bundle: str
    platform: str
    cpu: str
    gpu: str
    versions: dict[str, str]
    backends: tuple[BackendState, ...]
    dla: BackendState | None


def device_report(bundle: Bundle, cache_dir: Path | None = None) -> DeviceReport:
    """Return what can run here. It builds nothing and loads no engine."""
    return DeviceReport(
        bundle=str(bundle.path),
        platform=host_platform(),
        cpu=cpu_instructions(),
        gpu=_gpu(),
        versions=tool_versions(),
        backends=tuple(
            _state(bundle, each, reason, cache_dir) for each, reason in runnable_backends(bundle, cache_dir).items()
        ),
        dla=_dla_state(bundle, cache_dir),
    )


def exit_status(states: tuple[BackendState, ...]) -> int:
    """Return 0 if a backend would load, 3 if one can run here and no engine fits, 2 if none can run here."""
    if any(each.state.loads for each in states):
        return WOULD_LOAD
    return NO_ENGINE_FITS if any(each.state is State.NO_ENGINE for each in states) else NOTHING_RUNS


def preflight(bundle: Bundle, target: Target) -> tuple[BackendVerdict, ...]:
    """Return the verdicts on `bundle` for a device that is not at hand.

    Raises: BundleError if the graph was changed after export.
    """
    dialect = bundle.manifest.dialects.get(BACKENDS[target.backend])
    facts = None if dialect is None else graph_facts(bundle.read(dialect.graph))
    return judge(bundle.manifest, target, facts, shlex.quote(str(bundle.path)))


def graph_facts(graph: bytes) -> GraphFacts | None:
    """Return what engines depend on in a serialised ONNX graph; None where onnx is not installed."""
    try:
        from ran_deploy.converters.dialects.tensorrt import find_unsigned
        from ran_deploy.converters.graph import model_from_bytes
        from ran_deploy.converters.graph_facts import align_corners_resizes, fp16_scales, opset_of
    except ImportError:
        return None
    model = model_from_bytes(graph)
    return GraphFacts(
        opset=opset_of(model),
        align_corners=tuple(align_corners_resizes(model)),
        unsigned=tuple(f"{node.op_type} of {node.outputs[0].name!r}" for node, _ in find_unsigned(model)),
        fp16_scales=fp16_scales(model),
    )


def _state(bundle: Bundle, backend: str, reason: str | None, cache_dir: Path | None) -> BackendState:
    if unavailable_reason(backend) is not None:
        return BackendState(backend=backend, state=State.UNAVAILABLE, reason=reason)
    here = fingerprint(backend)
    if reason is not None:
        return BackendState(
            backend=backend,
            state=State.NO_ENGINE,
            reason=reason,
            fingerprint=here,
            next_step=build_command(bundle, backend),
        )
    return _stored(bundle, backend, cache_dir) or BackendState(
        backend=backend, state=State.MADE_ON_LOAD, fingerprint=here
    )


def _stored(bundle: Bundle, backend: str, cache_dir: Path | None) -> BackendState | None:
    """Return how far the engine is that the cache or the bundle has for this device; None if there is none."""
    engine = find_engine(bundle, backend, cache_dir)
    if engine is None:
        return None
    state = State.PROVEN if engine.proven else State.UNPROVEN
    return BackendState(
        backend=backend,
        state=state,
        fingerprint=fingerprint(backend),
        stripped=engine.refit_from is not None,
        half_pixel=engine.half_pixel,
        padding=engine.padding,
    )


def _dla_state(bundle: Bundle, cache_dir: Path | None) -> BackendState | None:
    """Return how far the engine for DLA is, which serves every core; None without one."""
    (backend,) = DLA_BACKENDS
    if BACKENDS[backend] not in bundle.manifest.dialects or unavailable_reason(backend) or not trt_dla.core_count():
        return None
    with trt_dla.on_core(0):
        return _stored(bundle, backend, cache_dir)


def _gpu() -> str:
    """Return the GPU, its compute capability and its driver's CUDA version, or why there is none."""
    try:
        cuda.require_gpu()
        device = cuda.current_device()
    except RanDeployError as exc:
        return f"none ({str(exc).rstrip('.')})"
    return f"{device.name}, compute capability {device.compute_capability}, driver for CUDA {device.driver}"
