"""Checking a bundle's engines: against their golden logits, and against the reference network on data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.counts import counted
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Manifest, Task
from ran_deploy.report.attention import ShownAttention
from ran_deploy.report.schema import ValidationReport
from ran_deploy.verification.embeddings import Compared
from ran_deploy.workflows.engines import ALL, AUTO, expand_backends, load_engine, prove_engine, runnable_backends
from ran_deploy.workflows.evaluators import Infer, Replayed, checkpoint_reference, emulated_dialect, graph_reference
from ran_deploy.workflows.validation_attention import AttentionReference, open_attention, shown_attention
from ran_deploy.workflows.validation_images import ValidationImages
from ran_deploy.workflows.validation_report import Measured, report_on, shown_images
from ran_deploy.workflows.validation_tasks import TASKS, ImageRequest

__all__ = ["ValidateConfig", "Validation", "validate_bundle"]

logger = logging.getLogger(__name__)

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What to check: without `data` the golden self-test alone, without `reference` against the bundle's FP32 graph.

    `backends` may hold 'auto', the best that can run here, and 'all', which also estimates those that cannot by
    emulating their graph. `pairs` is a file that says which images of an embedding's data show the same; without it
    pairs are made of the classes. `max_drop_pp` is in percentage points of top-1, or of verification accuracy.
    """

    bundle: Path
    data: Path | None = None
    reference: Path | None = None
    architecture: str | None = None
    model: str | None = None
    pairs: Path | None = None
    backends: tuple[str, ...] = (AUTO,)
    max_drop_pp: float | None = None
    limit: int | None = None
    cache_dir: Path | None = None
    require_signature: Path | None = None

    def __post_init__(self) -> None:
        if self.data is None and self.reference is not None:
            raise ConfigError("--reference compares on images; add --data PATH.")
        if self.data is None and self.max_drop_pp is not None:
            raise ConfigError("--max-drop is judged on labelled images; add --data PATH.")
        if self.pairs is not None and (self.data is None or self.limit is not None):
            raise ConfigError("--pairs names images of --data PATH, and all of them: add --data, leave --limit out.")
        if self.max_drop_pp is not None and not 0 <= self.max_drop_pp <= 100:
            raise ConfigError(f"--max-drop is {self.max_drop_pp}; expected percentage points from 0 to 100.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is {self.limit}; expected at least 1 image.")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The report, and what it shows: images, uint8 RGB by index in the data set, and masks by backend."""

    report: ValidationReport
    images: Mapping[int, np.ndarray]
    attention: Mapping[str, tuple[ShownAttention, ...]]


class _Reference:
    """What one engine after another is compared with, on the same images; its outputs are computed once."""

    def __init__(self, name: str, infer: Infer, images: ValidationImages, task: Task, progress: Progress) -> None:
        self.name = name
        self.images = images
        self._outputs = Replayed(infer)
        self._task = TASKS[task]
        self._progress = progress

    def compare(self, engine: Infer) -> Compared:
        """Compare an engine on all images; what is told of single ones has their index in the data set."""
        total = len(self.images)
        return self._task.compare(self.images, self._outputs.start(), engine, lambda done: self._progress(done, total))


def validate_bundle(
    config: ValidateConfig, report: Report = logger.info, progress: Progress = lambda done, total: None
) -> Validation:
    """Run the self-test of each backend and, with data, compare it with the reference.

    `report` gets a line for each stage, `progress` the images done in it. Every file of the bundle is checked first.
    Images that cannot be read are counted and left out: figures and verdict are those of the others.
    Raises: SelfTestError for an engine with wrong outputs, DatasetError for images used in calibration, and what
    opening bundle, engine, checkpoint or data set raises. An unmet budget is no error: see `report.passed`.
    """
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    bundle.verify()  # all of it, also what this run does not use
    backends = expand_backends(bundle, config.backends, config.cache_dir)
    images = _read_images(config, bundle.manifest, report, progress) if config.data else None
    reference, attention = None, None
    with ExitStack() as stack:
        if images is not None:
            name, infer = stack.enter_context(_open_reference(config, bundle))
            report(f"reference: {name}")
            reference = _Reference(name, infer, images, bundle.manifest.task, progress)
            attention = stack.enter_context(open_attention(bundle, images, report, progress))
        measured = [_measured(bundle, backend, reference, attention, config.cache_dir, report) for backend in backends]
        if reference is not None and ALL in config.backends:
            missing = _cannot_run(bundle, config.cache_dir)
            measured += [_estimated(bundle, backend, reference, attention, report) for backend in missing]
    named = reference.name if reference else None
    return Validation(
        report=report_on(bundle, measured, images=images, reference=named, max_drop_pp=config.max_drop_pp),
        images=shown_images(images, measured),
        attention=shown_attention(images, {m.backend: m.attention for m in measured if m.attention}) if images else {},
    )


def _read_images(config: ValidateConfig, manifest: Manifest, report: Report, progress: Progress) -> ValidationImages:
    assert config.data is not None
    return TASKS[manifest.task].read(
        ImageRequest(
            dataset=open_dataset(config.data, Split.TEST),
            manifest=manifest,
            limit=config.limit,
            pairs=config.pairs,
            judged=config.max_drop_pp is not None,
            report=report,
            progress=progress,
        )
    )


@contextmanager
def _open_reference(config: ValidateConfig, bundle: Bundle) -> Iterator[tuple[str, Infer]]:
    """Yield the reference's name, and what computes its logits."""
    if config.reference is not None:
        infer = checkpoint_reference(config.reference, config.model, bundle.manifest, config.architecture)
        yield f"{config.reference} in PyTorch", infer
    else:
        with graph_reference(bundle) as infer:
            yield "the bundle's FP32 graph", infer


def _measured(
    bundle: Bundle,
    backend: str,
    reference: _Reference | None,
    attention: AttentionReference | None,
    cache_dir: Path | None,
    report: Report,
) -> Measured:
    """Run an engine: the golden inputs and, with a reference, its images."""
    report(f"{backend}: golden self-test" + (f", then {counted(len(reference.images), 'image')}" if reference else ""))
    loaded = load_engine(bundle, backend, cache_dir=cache_dir)
    with loaded.predictor as predictor:
        return Measured(
            backend=backend,
            self_test=loaded.self_test or prove_engine(bundle, backend, predictor),
            comparison=reference.compare(predictor.infer_batch) if reference else None,
            attention=attention.compare_engine(predictor) if attention else None,
        )


def _estimated(
    bundle: Bundle, backend: str, reference: _Reference, attention: AttentionReference | None, report: Report
) -> Measured:
    """Evaluate the graph of a backend that cannot run here."""
    dialect = BACKENDS[backend]
    report(f"{backend}: cannot run here, its graph is emulated on {counted(len(reference.images), 'image')}")
    with emulated_dialect(bundle, dialect) as infer:
        comparison = reference.compare(infer)
    masks = attention.compare_emulated(bundle, dialect) if attention else None
    return Measured(backend=backend, self_test=None, comparison=comparison, attention=masks)


def _cannot_run(bundle: Bundle, cache_dir: Path | None) -> list[str]:
    """Return one backend for each dialect of which none can run here."""
    reasons = runnable_backends(bundle, cache_dir)
    running = {BACKENDS[backend] for backend, reason in reasons.items() if reason is None}
    missing = {BACKENDS[backend]: backend for backend in reasons if BACKENDS[backend] not in running}
    return list(missing.values())
