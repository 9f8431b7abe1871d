"""Checking a bundle's engines: against their golden logits, and against the reference network on data."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from ran_deploy.bundle import open_bundle
from ran_deploy.counts import counted
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.manifest import Manifest, Task
from ran_deploy.verification.embeddings import Compared
from ran_deploy.workflows.engines import ALL, expand_backends
from ran_deploy.workflows.evaluators import Infer, Replayed, open_reference
from ran_deploy.workflows.unlabelled import certify_bundle
from ran_deploy.workflows.validate_config import Progress, Report, ValidateConfig, Validation, no_progress
from ran_deploy.workflows.validation_attention import open_attention, shown_attention
from ran_deploy.workflows.validation_engines import run_engines
from ran_deploy.workflows.validation_images import ValidationImages
from ran_deploy.workflows.validation_report import report_on, shown_images
from ran_deploy.workflows.validation_tasks import TASKS, ImageRequest

__all__ = ["ValidateConfig", "Validation", "validate_bundle"]

logger = logging.getLogger(__name__)


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
    config: ValidateConfig, report: Report = logger.info, progress: Progress = no_progress
) -> Validation:
    """Run the self-test of each backend and, with data or images without labels, compare it with the reference.

    `report` gets a line for each stage, `progress` the images done in it. Every file of the bundle is checked first.
    Images that cannot be read are counted and left out: figures and verdict are those of the others.
    Raises: SelfTestError for an engine with wrong outputs, DatasetError for images used in calibration, and what
    opening bundle, engine, checkpoint or data set raises. An unmet budget is no error: see `report.passed`.
    """
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    bundle.verify()  # all of it, also what this run does not use
    if config.unlabelled is not None:
        return certify_bundle(bundle, config, report, progress)
    backends = expand_backends(bundle, config.backends, config.cache_dir)
    images = _read_images(config, bundle.manifest, report, progress) if config.data else None
    reference, attention = None, None
    with ExitStack() as stack:
        if images is not None:
            name, infer = stack.enter_context(
                open_reference(bundle, config.reference, config.model, config.architecture)
            )
            report(f"reference: {name}")
            reference = _Reference(name, infer, images, bundle.manifest.task, progress)
            attention = stack.enter_context(open_attention(bundle, images, report, progress))
        measured = run_engines(
            bundle,
            backends,
            reference.compare if reference else None,
            attention=attention,
            images=counted(len(images), "image") if images else "",
            estimates=ALL in config.backends,
            cache_dir=config.cache_dir,
            report=report,
        )
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
