"""Checking a bundle's engines: against their golden logits, and against the reference network on data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.counts import counted
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.manifest import Task
from ran_deploy.verification.embeddings import Compared
from ran_deploy.workflows.engines.device_choice import using_device
from ran_deploy.workflows.engines.loading import ALL, expand_backends
from ran_deploy.workflows.evaluation.evaluators import Infer
from ran_deploy.workflows.evaluation.images import ValidationImages
from ran_deploy.workflows.evaluation.tasks import TASKS, ImageRequest
from ran_deploy.workflows.validation.attention import open_attention, shown_attention
from ran_deploy.workflows.validation.bundle_pair import common_backends
from ran_deploy.workflows.validation.config import Progress, Report, ValidateConfig, Validation, no_progress
from ran_deploy.workflows.validation.details import with_details
from ran_deploy.workflows.validation.engines import Compare, run_engines
from ran_deploy.workflows.validation.references import OtherBundle, Reference, open_other, open_references
from ran_deploy.workflows.validation.report import report_on, shown_images
from ran_deploy.workflows.validation.unlabelled import certify_bundle

__all__ = ["ValidateConfig", "Validation", "validate_bundle"]

logger = logging.getLogger(__name__)


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
    other = open_other(config, bundle)
    check = certify_bundle if config.unlabelled is not None else _compare_engines
    with using_device(config.device, bundle, config.backends, config.cache_dir):
        backends = _backends(config, bundle, other)
        validation = check(bundle, config, backends, other, report, progress)
        return with_details(validation, bundle, config.cache_dir, report, progress) if config.details else validation


def _compare_engines(
    bundle: Bundle,
    config: ValidateConfig,
    backends: Sequence[str],
    other: OtherBundle | None,
    report: Report,
    progress: Progress,
) -> Validation:
    """Run golden inputs and, where there are any, images with the reference's outputs through each engine."""
    images = _read_images(config, bundle, other, report, progress) if config.data else None
    reference, compare, attention = None, None, None
    with ExitStack() as stack:
        if images is not None:
            taken = images
            reference = stack.enter_context(open_references(config, bundle, other, lambda: taken))
            report(f"reference: {reference.name}")
            compare = _comparing(images, reference, bundle.manifest.task, progress)
            if other is None:
                attention = stack.enter_context(open_attention(bundle, images, report, progress))
        measured = run_engines(
            bundle,
            backends,
            compare,
            attention=attention,
            images=counted(len(images), "image") if images else "",
            estimates=ALL in config.backends and other is None,
            cache_dir=config.cache_dir,
            report=report,
        )
    return Validation(
        report=report_on(
            bundle,
            measured,
            images=images,
            reference=reference.name if reference else None,
            max_drop_pp=config.max_drop_pp,
            warnings=(*(other.warnings if other else ()), *images.warnings) if images else (),
            compared=other.comparison if other else None,
        ),
        images=shown_images(images, measured),
        data=images,
        attention=shown_attention(images, {m.backend: m.attention for m in measured if m.attention}) if images else {},
    )


def _backends(config: ValidateConfig, bundle: Bundle, other: OtherBundle | None) -> tuple[str, ...]:
    if other is None:
        return expand_backends(bundle, config.backends, config.cache_dir)
    return common_backends(other.bundle, bundle, config.backends, config.cache_dir)


def _comparing(images: ValidationImages, reference: Reference, task: Task, progress: Progress) -> Compare:
    """Return what compares an engine on all images; what is told of single ones has their index in the data set."""
    total = len(images)

    def compare(backend: str, engine: Infer) -> Compared:
        with reference.start(backend) as expected:
            return TASKS[task].compare(images, expected, engine, lambda done: progress(done, total))

    return compare


def _read_images(
    config: ValidateConfig, bundle: Bundle, other: OtherBundle | None, report: Report, progress: Progress
) -> ValidationImages:
    assert config.data is not None
    return TASKS[bundle.manifest.task].read(
        ImageRequest(
            dataset=open_dataset(config.data, Split.TEST),
            manifest=bundle.manifest,
            other=other.bundle.manifest if other else None,
            limit=config.limit,
            pairs=config.pairs,
            judged=config.max_drop_pp is not None,
            report=report,
            progress=progress,
        )
    )
