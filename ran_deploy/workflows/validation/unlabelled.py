"""What images without labels prove of a bundle's engines: a bound of the accuracy drop, found as early as it can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.counts import counted
from ran_deploy.datasets import open_images
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Task
from ran_deploy.verification.certificate import bound_so_far, certify, is_decided
from ran_deploy.verification.comparison import ClassTally, Comparison, compare_by
from ran_deploy.workflows.engines.loading import ALL
from ran_deploy.workflows.evaluation.evaluators import Infer
from ran_deploy.workflows.evaluation.images import copies_warnings, used_images
from ran_deploy.workflows.evaluation.shuffled_images import ShuffledImages
from ran_deploy.workflows.validation.config import Progress, Report, ValidateConfig, Validation
from ran_deploy.workflows.validation.engines import Compare, run_engines
from ran_deploy.workflows.validation.references import OtherBundle, Reference, open_references
from ran_deploy.workflows.validation.report import Measured, report_on, shown_images

__all__ = ["certify_bundle"]


def certify_bundle(
    bundle: Bundle,
    config: ValidateConfig,
    backends: Sequence[str],
    other: OtherBundle | None,
    report: Report,
    progress: Progress,
) -> Validation:
    """Run the self-test of each backend, then images in random order until the budget is proven or cannot be.

    `other` is the bundle whose engines are the reference, where there is one.
    Images that cannot be read are passed over and counted. An unmet budget is no error: see `report.passed`.
    Raises: ConfigError for an embedding, DatasetError for an image that made the engine, SelfTestError, and what
    opening bundle, engine, checkpoint or images raises.
    """
    manifest = bundle.manifest
    if manifest.task is not Task.CLASSIFICATION:
        raise ConfigError(
            f"--unlabelled bounds the accuracy of a classifier by how often classes change, but {manifest.name} is an "
            "embedding. Give --data with a folder for each class, or with --pairs."
        )
    assert config.unlabelled is not None
    images = ShuffledImages(
        open_images(config.unlabelled),
        manifest.preprocessing,
        seed=config.seed or 0,
        limit=config.limit,
        used=used_images(manifest, *([other.bundle.manifest] if other else [])),
        also=other.bundle.manifest.preprocessing if other else None,
    )
    report(_plan(images, config))
    with open_references(config, bundle, other, lambda: images.taken) as reference:
        report(f"reference: {reference.name}")
        measured = run_engines(
            bundle,
            backends,
            _comparing(images, reference, config, progress),
            images="images",
            estimates=ALL in config.backends and other is None,
            cache_dir=config.cache_dir,
            report=report,
        )
    return Validation(
        report=report_on(
            bundle,
            [_certified(found, images, config) for found in measured],
            images=images.taken,
            reference=reference.name,
            max_drop_pp=config.max_drop_pp,
            warnings=(*(other.warnings if other else ()), *copies_warnings(images.copies, len(images.taken))),
            compared=other.comparison if other else None,
        ),
        images=shown_images(images.taken, measured),
        data=images.taken,
    )


def _plan(images: ShuffledImages, config: ValidateConfig) -> str:
    order = (
        f"{counted(images.available, 'image')} of {images.taken.dataset.name} in random order (seed {config.seed or 0})"
    )
    if config.max_drop_pp is None:
        return order
    return f"{order}, until a drop of at most {config.max_drop_pp:g} points is proven"


def _comparing(images: ShuffledImages, reference: Reference, config: ValidateConfig, progress: Progress) -> Compare:
    """Return what compares an engine on one batch after another until the outcome is known."""

    def until_decided(tally: ClassTally) -> Iterator[tuple[np.ndarray, None]]:
        with closing(images.batches()) as batches:
            for batch in batches:
                yield batch, None
                changed, done = tally.disagreeing, tally.images
                progress(done, images.available, bound_so_far(changed, done))
                if config.max_drop_pp is not None and is_decided(changed, done, config.max_drop_pp):
                    return

    def compare(backend: str, engine: Infer) -> Comparison:
        tally = ClassTally()
        with reference.start(backend) as expected:
            found = compare_by(tally, expected, engine, until_decided(tally))
        return found.renumbered(images.taken.indices)

    return compare


def _certified(measured: Measured, images: ShuffledImages, config: ValidateConfig) -> Measured:
    comparison = measured.comparison
    assert isinstance(comparison, Comparison)
    certificate = certify(
        comparison.disagreement_count,
        comparison.images,
        available=images.available,
        seed=config.seed or 0,
        max_drop_pp=config.max_drop_pp,
    )
    return replace(measured, certificate=certificate)
