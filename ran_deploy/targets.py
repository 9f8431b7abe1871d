"""Devices a bundle may be taken to, as far as engines depend on them: each fact with its source, None where unknown."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ran_deploy.errors import ConfigError

__all__ = ["TARGETS", "Target", "Version", "lowest_capability", "opset_limit", "target_from_text", "version_text"]

Version = tuple[int, ...]
Capability = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The engine software of a device; `version` may be shorter than the package's own, such as (10, 3).

    `capability` is the GPU's compute capability, `platform` is written like `Linux aarch64`.
    """

    name: str
    backend: str
    version: Version
    capability: Capability | None = None
    platform: str | None = None
    jetson: bool = False  # whether it is surely one
    dla: bool = False  # whether devices of this kind are known to have DLA cores


ORIN = (8, 7)  # Source: https://developer.nvidia.com/cuda-gpus
_JETSON = {"backend": "tensorrt", "platform": "Linux aarch64", "jetson": True}
# Orin is the only Jetson of JetPack 6.
_ORIN = {**_JETSON, "capability": ORIN, "dla": True}
# JetPack 5 is also for Xavier, 7.2 for Thor too: no single capability.
_SEVERAL = {**_JETSON, "dla": True}
# Thor is 11.0, and has CUDA 13.0 and TensorRT 10.13.3 as delivered with JetPack 7.0, the only release for it in October
# 2025. Source: https://github.com/NVIDIA/TensorRT/issues/4590. That it had DLA was found nowhere.
_THOR = {**_JETSON, "capability": (11, 0)}
TARGETS: dict[str, Target] = {
    # CUDA 11.4, TensorRT 8.4.1. Source: https://developer.nvidia.com/embedded/jetpack-sdk-502
    "jetpack-5.0": Target(name="jetpack-5.0", version=(8, 4), **_SEVERAL),  # type: ignore[arg-type]
    # CUDA 11.4, TensorRT 8.5.2. Source: https://developer.nvidia.com/embedded/jetpack-sdk-51, and 5.1.1 the same
    "jetpack-5.1": Target(name="jetpack-5.1", version=(8, 5), **_SEVERAL),  # type: ignore[arg-type]
    # CUDA 12.2, TensorRT 8.6. Sources: https://github.com/ultralytics/ultralytics/pull/7196 and, from a maintainer's
    # memory, https://github.com/pytorch/TensorRT/issues/3049
    "jetpack-6.0": Target(name="jetpack-6.0", version=(8, 6), **_ORIN),  # type: ignore[arg-type]
    # CUDA 12.6, TensorRT 10.3. Source: https://docs.pytorch.org/TensorRT/v2.6.1/getting_started/jetpack.html
    "jetpack-6.1": Target(name="jetpack-6.1", version=(10, 3), **_ORIN),  # type: ignore[arg-type]
    # CUDA 12.6, TensorRT 10.3. Source: https://github.com/pytorch/TensorRT/pull/3453
    "jetpack-6.2": Target(name="jetpack-6.2", version=(10, 3), **_ORIN),  # type: ignore[arg-type]
    "jetpack-7.0": Target(name="jetpack-7.0", version=(10, 13), **_THOR),  # type: ignore[arg-type]
    # CUDA 13.0, TensorRT 10.13, Thor. Source: https://github.com/roboflow/inference/pull/2478
    "jetpack-7.1": Target(name="jetpack-7.1", version=(10, 13), **_THOR),  # type: ignore[arg-type]
    # CUDA 13.2, TensorRT 10.16.2. Source: https://github.com/NVIDIA/TensorRT/issues/4832 (L4T R39.2 on Orin and Thor)
    "jetpack-7.2": Target(name="jetpack-7.2", version=(10, 16), **_SEVERAL),  # type: ignore[arg-type]
}
# The newest opset of a release's ONNX parser; a later release reads at least as much.
_OPSETS: dict[Version, int] = {
    (8, 5): 17,  # https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/operators.md
    (8, 6): 17,  # https://github.com/onnx/onnx-tensorrt/blob/release/8.6-GA/docs/operators.md
    (10, 15): 24,  # https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/operators.md
    (11, 5): 25,  # https://github.com/NVIDIA/TensorRT/releases/tag/v11.5
}
# The lowest compute capability from a release on.
_LOWEST: dict[Version, Capability] = {
    # https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1010/support-matrix/index.html
    (10, 1): (7, 0),
    # https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.5.0.html
    (10, 5): (7, 5),
}
_PATTERN = re.compile(
    r"(?P<backend>tensorrt-rtx|tensorrt|openvino|onnxruntime)-(?P<version>\d+(\.\d+){1,3})"
    r"(:sm(?P<major>\d{1,2})(?P<minor>\d))?"
)


def target_from_text(text: str) -> Target:
    """Return the target that `text` names: one of TARGETS, or as in `tensorrt-11.4:sm90`, `openvino-2026.4`.

    Raises: ConfigError if nothing is known of it.
    """
    if text in TARGETS:
        return TARGETS[text]
    match = _PATTERN.fullmatch(text)
    gpu = match is not None and match["backend"].startswith("tensorrt")
    if match is None or (match["major"] is not None and not gpu):
        near = difflib.get_close_matches(text.lower().replace(" ", "-"), TARGETS, n=1, cutoff=0.7)
        nearest = f"; nearest is {near[0]}" if near else ""
        raise ConfigError(
            f"No target {text!r} is known{nearest}. Known are {', '.join(TARGETS)}. Or name the engine's version, and "
            "of a GPU its compute capability: tensorrt-X.Y:smNN, tensorrt-rtx-X.Y:smNN, openvino-X.Y, onnxruntime-X.Y."
        )
    capability = None if match["major"] is None else (int(match["major"]), int(match["minor"]))
    version = tuple(int(part) for part in match["version"].split("."))
    orin = capability == ORIN
    return Target(name=text, backend=match["backend"], version=version, capability=capability, jetson=orin, dla=orin)


def version_text(version: Version) -> str:
    """Return (10, 3) as '10.3'."""
    return ".".join(str(part) for part in version)


def opset_limit(tensorrt: Version) -> tuple[int, bool] | None:
    """Return the newest opset that release is known to read, and whether that is its limit; None if unknown."""
    exact = _OPSETS.get(tensorrt[:2])
    if exact is not None:
        return exact, True
    earlier = [release for release in _OPSETS if release < tensorrt[:2]]
    if not earlier:
        return None
    return _OPSETS[max(earlier)], False


def lowest_capability(tensorrt: Version) -> Capability | None:
    """Return the lowest compute capability that release may support; None if unknown. Later ones may need more."""
    earlier = [release for release in _LOWEST if release <= tensorrt[:2]]
    return _LOWEST[max(earlier)] if earlier else None
