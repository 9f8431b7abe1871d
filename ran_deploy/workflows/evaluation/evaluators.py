"""What computes logits for comparison: the checkpoint, the reference graph, a dialect emulated on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.errors import BackendUnavailableError, CheckpointError, ConfigError
from ran_deploy.manifest import Manifest
from ran_deploy.models.zoo import ARCHITECTURES
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_emulation
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner

if TYPE_CHECKING:
    from ran_deploy.models import LoadedCheckpoint

__all__ = [
    "MODEL_FILE",
    "REFERENCE_FILE",
    "Infer",
    "Read",
    "Replayed",
    "checkpoint_reference",
    "emulated_dialect",
    "fp32_runner",
    "graph_reference",
    "open_reference",
]

MODEL_FILE = "model.onnx"
REFERENCE_FILE = "reference.onnx"
CPU_BACKENDS = ("onnxruntime", "openvino")

Infer = Callable[[np.ndarray], np.ndarray]
Read = Callable[[Mapping[str, np.ndarray]], np.ndarray]  # from a graph's outputs by name to what is compared, (N, size)


def logits_of(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the logits among the outputs of a graph."""
    return outputs[OUTPUT]


class Replayed:
    """Logits of the reference, computed in the first pass over the data and remembered for the next engines."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._batches: list[np.ndarray] = []

    def start(self) -> Infer:
        """Return what gives the logits of each batch in turn, from the first one on."""
        position = 0

        def next_batch(images: np.ndarray) -> np.ndarray:
            nonlocal position
            if position == len(self._batches):
                self._batches.append(self._infer(images))
            position += 1
            return self._batches[position - 1]

        return next_batch


def checkpoint_reference(path: Path, model: str | None, manifest: Manifest, architecture: str | None = None) -> Infer:
    """Return PyTorch's logits of a checkpoint, which need not be the one that was exported.

    The one that was is taken for the network it was exported as.

    Raises: CheckpointError if its classes are not the bundle's; BackendUnavailableError without PyTorch.
    """
    try:
        from ran_deploy.models import load_checkpoint
        from ran_deploy.workflows.evaluation.reference import torch_logits
    except ImportError as exc:
        raise BackendUnavailableError(
            f"--reference needs PyTorch ({exc}). Install it: pip install 'ran-deploy[export]', or leave --reference "
            "out to compare with the bundle's FP32 graph."
        ) from exc
    size = manifest.preprocessing.crop
    checkpoint = load_checkpoint(path, architecture=architecture, model=model, input_size=size)
    if architecture is model is None and _exported_under_a_name(checkpoint, manifest):
        checkpoint = load_checkpoint(path, architecture=manifest.architecture, input_size=size)
    if checkpoint.num_classes != manifest.output_size:
        raise CheckpointError(
            f"Checkpoint {path} has {manifest.task.counted(checkpoint.num_classes)}, the bundle "
            f"{manifest.output_size}; give the checkpoint the bundle was exported from."
        )
    return lambda images: torch_logits(checkpoint, manifest.preprocessing, images)


def _exported_under_a_name(checkpoint: LoadedCheckpoint, manifest: Manifest) -> bool:
    """Tell the bundle's own checkpoint from others where its keys alone say another network."""
    is_own = checkpoint.sha256 == manifest.checkpoint.sha256
    return is_own and checkpoint.architecture != manifest.architecture and manifest.architecture in ARCHITECTURES


@contextmanager
def graph_reference(bundle: Bundle, read: Read = logits_of) -> Iterator[Infer]:
    """Yield what computes the outputs of the bundle's own FP32 graph. Raises: ConfigError if it was left out."""
    name = REFERENCE_FILE if bundle.manifest.precision is not Precision.FP32 else MODEL_FILE
    if name not in bundle:
        raise ConfigError(f"Bundle {bundle.path} was exported without its FP32 graph; give --reference CHECKPOINT.")
    with _closing(fp32_runner(bundle.read(name)), read) as infer:
        yield infer


@contextmanager
def open_reference(
    bundle: Bundle, checkpoint: Path | None, model: str | None, architecture: str | None
) -> Iterator[tuple[str, Infer]]:
    """Yield the reference's name, and what computes its logits: a checkpoint in PyTorch, else the bundle's own graph.

    Raises: as `checkpoint_reference` and `graph_reference`.
    """
    if checkpoint is not None:
        yield f"{checkpoint} in PyTorch", checkpoint_reference(checkpoint, model, bundle.manifest, architecture)
    else:
        with graph_reference(bundle) as infer:
            yield "the bundle's FP32 graph", infer


@contextmanager
def emulated_dialect(bundle: Bundle, dialect: str, read: Read = logits_of) -> Iterator[Infer]:
    """Yield what computes a dialect's outputs where no engine of it can run.

    That is its graph, evaluated exactly as written on the CPU.
    Raises: BackendUnavailableError without onnxruntime; OpenVINO rewrites a graph as it pleases.
    """
    graph = bundle.read(bundle.manifest.dialects[dialect].graph)
    with _closing(open_emulation(graph, dialect, bundle.manifest.precision), read) as infer:
        yield infer


@contextmanager
def _closing(runner: Runner, read: Read) -> Iterator[Infer]:
    try:
        yield lambda images: read(runner.infer({INPUT: images}))
    finally:
        runner.close()


def fp32_runner(graph: bytes) -> Runner:
    """Return what evaluates a float32 graph on this CPU. Raises: BackendUnavailableError if nothing can."""
    reasons = []
    for backend in CPU_BACKENDS:
        try:
            return open_runner(backend, open_builder(backend).build(graph, BuildOptions(precision=Precision.FP32)))
        except BackendUnavailableError as exc:
            reasons.append(str(exc))
    raise BackendUnavailableError(f"Nothing here can evaluate an ONNX graph on the CPU. {' '.join(reasons)}")
