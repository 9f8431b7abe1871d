"""What becomes of a bundle on a device that is not at hand, from its manifest and what is known of the target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ran_deploy.backends import BACKENDS
from ran_deploy.engine.requirements import is_range, meets, meets_so_far
from ran_deploy.manifest import EngineRecord, Manifest
from ran_deploy.precision import Precision
from ran_deploy.targets import Target, Version, lowest_capability, opset_limit, version_text
from ran_deploy.vendors import OLDEST_TENSORRT

__all__ = ["BackendVerdict", "GraphFacts", "Verdict", "judge", "verdict_status"]

# Floors of the extras in setup.cfg: earlier releases cannot load the graphs or engines of a bundle.
OLDEST: dict[str, Version] = {"tensorrt": OLDEST_TENSORRT, "openvino": (2025, 2), "onnxruntime": (1, 21)}
OLDEST_TRTEXEC: Version = (8, 5)  # the first with uint8 inputs, see ran_deploy/workflows/trtexec.py
# QuantizeLinear takes FP16 from here on: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html
FP16_SCALES_OPSET = 19
# https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix-1/1.5.html
RTX_CAPABILITIES = ((7, 5), (8, 6), (8, 9), (12, 0), (12, 1))
RTX_PLATFORMS = ("Linux x86_64", "Windows AMD64")  # the same page and those of 1.0 and 1.4
RTX_ON_REQUEST = (7, 5)  # the same page: portable engines leave Turing out
# Up to the first: https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/inference-library/dla-runtime-configuration.html
# From the second: https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/dla-strongly-typed-networks.html
LAST_DLA: Version = (10, 7)
DLA_AGAIN: Version = (11, 4, 1)
# https://docs.nvidia.com/deeplearning/tensorrt/11.3.0/api/migration/tensorrt-10x-to-11x-jetson.html
# and the release notes of 11.0.0, which are for x86-64 and SBSA alone.
NOT_FOR_JETPACK: tuple[Version, ...] = ((11, 0), (11, 3))
# Alone: https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/support-policies.html
STRONGLY_TYPED: Version = (11,)


class Verdict(str, Enum):
    """What happens to a backend of the bundle on the target."""

    RUNS = "runs"
    UNKNOWN = "unknown"  # nothing known speaks against it, and something decisive is not known
    REBUILD = "rebuild"  # the graph fits, the engine of the bundle does not or there is none
    IMPOSSIBLE = "impossible"


@dataclass(frozen=True, kw_only=True)
class GraphFacts:
    """What was read in a dialect's graph: its opset, node names of align-corners Resizes, of unsigned zero points."""

    opset: int
    align_corners: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    fp16_scales: int = 0


@dataclass(frozen=True, kw_only=True)
class BackendVerdict:
    """The verdict on one backend, the graph it reads there, reasons, further remarks, and what to run, if anything."""

    backend: str
    graph: str | None
    verdict: Verdict
    reasons: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    command: str | None = None


def judge(manifest: Manifest, target: Target, facts: GraphFacts | None, bundle: str) -> tuple[BackendVerdict, ...]:
    """Return the verdict on the target's backend; for a device, then on every other engine that the bundle carries.

    `facts` are of the graph which the target's backend reads; None where it was not read. `bundle` is how the commands
    name it.
    """
    carried = [engine for engine in manifest.engines if engine.backend != target.backend and engine.file is not None]
    others = carried if target.platform is not None else []  # a release of software tells nothing of another one
    return (_target_verdict(manifest, target, facts, bundle), *(_other_verdict(each, target) for each in others))


def verdict_status(verdict: Verdict) -> int:
    """Return the exit status: 0 if nothing known is in the way, 3 if an engine has to be built, 2 if none can be."""
    return {Verdict.REBUILD: 3, Verdict.IMPOSSIBLE: 2}.get(verdict, 0)


def _target_verdict(manifest: Manifest, target: Target, facts: GraphFacts | None, bundle: str) -> BackendVerdict:
    backend = target.backend
    dialect = manifest.dialects.get(BACKENDS[backend])
    if dialect is None:
        reason = f"the bundle was exported without a graph for {backend}"
        return BackendVerdict(
            backend=backend,
            graph=None,
            verdict=Verdict.IMPOSSIBLE,
            reasons=(reason,),
            command=f"ran-export CHECKPOINT -o NEW.ran --backend {backend}",
        )
    remarks = (*graph_remarks(manifest.precision, target, facts), *dla_remarks(target, facts))
    if obstacles := find_obstacles(target, facts):
        return BackendVerdict(
            backend=backend,
            graph=dialect.graph,
            verdict=Verdict.IMPOSSIBLE,
            reasons=obstacles,
            remarks=remarks,
            command=trtexec_command(target, bundle),
        )
    engine = next((each for each in manifest.engines if each.backend == backend), None)
    verdict, reasons = engine_fate(backend, engine, target)
    return BackendVerdict(
        backend=backend,
        graph=dialect.graph,
        verdict=verdict,
        reasons=reasons,
        remarks=remarks,
        command=None if verdict is Verdict.RUNS else build_command(target, bundle),
    )


def _other_verdict(engine: EngineRecord, target: Target) -> BackendVerdict:
    backend, built_on = engine.backend, engine.fingerprint.get("platform", "unknown")
    verdict, reason = (
        Verdict.UNKNOWN,
        f"{target.name} does not say which {backend} is there; ask with --for {backend}-X.Y",
    )
    if built_on != target.platform:
        verdict, reason = Verdict.REBUILD, f"built on {built_on}; {target.name} is {target.platform}"
    if backend == "tensorrt-rtx" and target.platform not in RTX_PLATFORMS:
        verdict = Verdict.IMPOSSIBLE
        reason = f"TensorRT-RTX is for {' and '.join(RTX_PLATFORMS)}; {target.name} is {target.platform}"
    return BackendVerdict(backend=backend, graph=None, verdict=verdict, reasons=(reason,))


def find_obstacles(target: Target, facts: GraphFacts | None) -> tuple[str, ...]:
    """Return why no engine of this graph can run there, however it is built; none if no reason is known."""
    found = [_too_old(target), _opset_too_new(target, facts), _gpu_too_old(target), _unsigned(target, facts)]
    return tuple(reason for reason in found if reason is not None)


def _too_old(target: Target) -> str | None:
    oldest = OLDEST.get(target.backend, ())
    if target.version >= oldest:
        return None
    return f"{_software(target)} cannot load a bundle's graphs; expected {version_text(oldest)} or newer"


def _opset_too_new(target: Target, facts: GraphFacts | None) -> str | None:
    limit = opset_limit(target.version) if target.backend == "tensorrt" else None
    if facts is None or limit is None or not limit[1] or facts.opset <= limit[0]:
        return None
    return f"the graph is opset {facts.opset}; the parser of {_software(target)} reads up to {limit[0]}"


def _gpu_too_old(target: Target) -> str | None:
    lowest = {"tensorrt": lowest_capability(target.version), "tensorrt-rtx": RTX_CAPABILITIES[0]}.get(target.backend)
    if target.capability is None or lowest is None or target.capability >= lowest:
        return None
    return f"{_software(target)} needs compute capability {_dotted(lowest)}; the GPU has {_dotted(target.capability)}"


def _unsigned(target: Target, facts: GraphFacts | None) -> str | None:
    if not target.backend.startswith("tensorrt") or facts is None or not facts.unsigned:
        return None
    return f"{facts.unsigned[0]} has an unsigned zero point; TensorRT computes with int8 alone"


def _software(target: Target) -> str:
    return f"{target.backend} {version_text(target.version)}"


def engine_fate(backend: str, engine: EngineRecord | None, target: Target) -> tuple[Verdict, tuple[str, ...]]:
    """Return what becomes of the engine of `backend` that the bundle has, or not, where nothing else is in the way."""
    if not backend.startswith("tensorrt"):
        return Verdict.RUNS, ("made from the graph when it is first loaded, and proven then",)
    if engine is None or engine.file is None:
        return Verdict.REBUILD, (f"the bundle holds no {backend} engine",)
    dies, open_points = _version_fit(engine, target)
    where = engine.fingerprint.get("platform")
    if where is not None and target.platform is not None and where != target.platform:
        dies.append(f"built on {where}; {target.name} is {target.platform}, and engines do not move between platforms")
    if where is not None and target.platform is None:
        open_points.append(f"built on {where}; no other platform will load it")
    more_dies, more_open = (_rtx_fit if backend == "tensorrt-rtx" else _gpu_fit)(engine, target)
    dies, open_points = [*dies, *more_dies], [*open_points, *more_open]
    if dies:
        return Verdict.REBUILD, tuple(dies)
    if open_points:
        return Verdict.UNKNOWN, tuple(open_points)
    return Verdict.RUNS, ("version, platform and GPU are those it was built for",)


def _version_fit(engine: EngineRecord, target: Target) -> tuple[list[str], list[str]]:
    """Engines load in the very version that built them, major to build number, unless built to be compatible.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/support-policies.html
    """
    package = target.backend.replace("-", "_")
    built = engine.fingerprint.get(package)
    if built is None:
        return [], ["the version that built the engine is not on record"]
    there = version_text(target.version)
    fits = meets_so_far(target.version, built)
    if is_range(built):
        if fits is False:
            return [f"the engine is for {target.backend} {built}; {target.name} has {there}"], []
        return [], [] if fits else [f"the engine is for {target.backend} {built}, which the version there must be"]
    if fits is False:
        return [f"built by {target.backend} {built}; {target.name} has {there}"], []
    return [], [] if fits else [f"built by {target.backend} {built}, which must be the exact version there"]


def _gpu_fit(engine: EngineRecord, target: Target) -> tuple[list[str], list[str]]:
    """Kernels were chosen on one GPU model, unless the engine is built to be compatible.

    Sources: the engine portability note of every TensorRT support matrix;
    https://docs.nvidia.com/deeplearning/tensorrt/11.1.0/inference-library/engine-compatibility.html
    """
    built = engine.fingerprint.get("compute capability")
    if built is None or target.capability is None:
        return [], ["the compute capability of the engine or of the target is not known"]
    if not meets(_dotted(target.capability), built):
        return [f"built for compute capability {built}; {target.name} has {_dotted(target.capability)}"], []
    gpu = engine.fingerprint.get("GPU")
    if gpu is not None:
        return [], [f"built on {gpu}, which must be the GPU there"]
    return [], ["NVIDIA supports hardware-compatible engines on no Jetson"] if target.jetson else []


def _rtx_fit(engine: EngineRecord, target: Target) -> tuple[list[str], list[str]]:
    del engine  # which capabilities it was built for is not on record: ran-export builds for the default set
    if target.capability is None:
        return [], ["the compute capability of the target is not known"]
    if target.capability == RTX_ON_REQUEST:
        return ["engines hold no kernels for compute capability 7.5 unless they are built for it"], []
    if target.capability not in RTX_CAPABILITIES:
        listed = ", ".join(_dotted(each) for each in RTX_CAPABILITIES)
        return [], [f"NVIDIA lists {listed} for TensorRT-RTX; {_dotted(target.capability)} is not among them"]
    return [], []


def graph_remarks(precision: Precision, target: Target, facts: GraphFacts | None) -> tuple[str, ...]:
    """Return what the target changes about opset and precision of the graph."""
    if not target.backend.startswith("tensorrt"):
        return ()
    if facts is None:
        return ("opset, zero points and Resize of the graph were not checked: that needs onnx (ran-deploy[export])",)
    remarks = []
    if target.backend == "tensorrt":
        limit = opset_limit(target.version)
        if limit is not None and facts.opset <= limit[0]:
            remarks.append(f"the graph is opset {facts.opset}, which its parser reads")
        elif limit is None or not limit[1]:
            there = version_text(target.version)
            remarks.append(f"the graph is opset {facts.opset}; which opsets TensorRT {there} reads is unknown here")
        if target.jetson and target.version[:2] in NOT_FOR_JETPACK:
            remarks.append(f"NVIDIA does not support TensorRT {version_text(target.version[:2])} on Jetson")
        if target.version >= STRONGLY_TYPED:
            remarks.append(
                f"TensorRT 11 is strongly typed alone: {precision.value} is what the graph says, so no change"
            )
    if facts.fp16_scales and facts.opset < FP16_SCALES_OPSET:
        remarks.append(f"{facts.fp16_scales} scales are FP16, which ONNX has from opset {FP16_SCALES_OPSET} on")
    return tuple(remarks)


def dla_remarks(target: Target, facts: GraphFacts | None) -> tuple[str, ...]:
    """Return what a target with DLA cores would run on them; ran-build uses the GPU unless it is told --device dla:N.

    Bilinear Resize runs on DLA with half-pixel coordinates alone, as TensorRT's own log says in
    https://forums.developer.nvidia.com/t/unable-to-run-resize-layer-on-dla-on-xavier/219158
    """
    if not target.dla or target.backend != "tensorrt":
        return ()
    if LAST_DLA < target.version[:2] <= DLA_AGAIN[:2] and target.version < DLA_AGAIN:
        again = version_text(DLA_AGAIN)
        return (f"DLA: TensorRT {version_text(LAST_DLA)} was the last with DLA on Jetson before {again}, on AGX Orin",)
    if facts is None:
        return ("DLA: whether Resize could run on it was not checked",)
    if not facts.align_corners:
        return ("DLA: the graph has no align-corners Resize",)
    return (f"DLA: {len(facts.align_corners)} Resize nodes are align-corners, which DLA leaves to the GPU",)


def build_command(target: Target, bundle: str) -> str:
    """Return what to run on the target for an engine that fits; TensorRT-RTX's may be built on any x86-64 machine."""
    command = f"ran-build {bundle} --backend {target.backend}"
    if target.backend == "tensorrt-rtx" and target.capability == RTX_ON_REQUEST:
        command += f" --compute-capability {_dotted(target.capability)}"
    return command


def trtexec_command(target: Target, bundle: str) -> str | None:
    """Return how a TensorRT too old for us gets an engine from its own trtexec; None where it cannot."""
    if target.backend != "tensorrt" or not OLDEST_TRTEXEC <= target.version < OLDEST_TENSORRT[:1]:
        return None
    return f"ran-build {bundle} --backend tensorrt --trtexec DIR"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
