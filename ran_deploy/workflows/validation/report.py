"""From what was measured of a bundle's engines to the report on it, and to the images that report shows."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.counts import counted
from ran_deploy.errors import InputError
from ran_deploy.manifest import Manifest
from ran_deploy.preprocessing import describe
from ran_deploy.report.building import engine_report, validation_report
from ran_deploy.report.schema import BundleComparison, BundleSummary, EngineReport, Provenance, ValidationReport
from ran_deploy.runtime.backends import fingerprint
from ran_deploy.verification.attention import AttentionComparison
from ran_deploy.verification.certificate import Certificate
from ran_deploy.verification.embeddings import Compared
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.evaluation.images import ValidationImages

__all__ = ["Measured", "report_on", "shown_images", "summary_of"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found out about one backend. Without a self-test it did not run here: its graph was emulated.

    What the comparison tells of single images has their index in the data set. `half_pixel`: the engine enlarges masks
    with half-pixel sample points.
    """

    backend: str
    self_test: SelfTestResult | None
    comparison: Compared | None
    attention: AttentionComparison | None = None
    certificate: Certificate | None = None  # of images without labels
    half_pixel: bool = False


def report_on(
    bundle: Bundle,
    measured: Sequence[Measured],
    *,
    images: ValidationImages | None,
    reference: str | None,
    max_drop_pp: float | None,
    warnings: Sequence[str] = (),
    compared: BundleComparison | None = None,
) -> ValidationReport:
    """Judge each backend and join them; `reference` is the name of what they were compared with on `images`.

    `warnings` are about the images or what is compared; what is to be said of an engine is found here.
    """
    manifest = bundle.manifest
    return validation_report(
        [_engine(manifest, found, images, max_drop_pp) for found in measured],
        bundle=summary_of(bundle),
        provenance=_provenance(manifest, images, reference),
        max_drop_pp=max_drop_pp,
        unreadable=images.unreadable if images else (),
        warnings=warnings,
        compared=compared,
        manifest=manifest,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def summary_of(bundle: Bundle) -> BundleSummary:
    """Return which bundle it is."""
    manifest = bundle.manifest
    return BundleSummary(
        name=manifest.name,
        sha256=bundle.digest,
        architecture=manifest.architecture,
        task=manifest.task,
        output_size=manifest.output_size,
    )


def shown_images(images: ValidationImages | None, measured: Sequence[Measured]) -> dict[int, np.ndarray]:
    """Return the images that the report shows, uint8 RGB by index in the data set, without those lost meanwhile."""
    shown = {}
    for index in sorted({index for found in measured for index in _shown(found)}) if images else ():
        assert images is not None
        with contextlib.suppress(InputError):  # the figures are done: a picture less must not lose them
            shown[index] = images.dataset.image(index)
    return shown


def _engine(
    manifest: Manifest, found: Measured, images: ValidationImages | None, max_drop_pp: float | None
) -> EngineReport:
    ran_here = found.self_test is not None
    return engine_report(
        backend=found.backend,
        precision=manifest.precision.value,
        comparison=found.comparison,
        certificate=found.certificate,
        self_test=found.self_test,
        max_drop_pp=max_drop_pp,
        device=_device(found) if ran_here else {},
        estimate=not ran_here,
        class_names=manifest.labels,
        files={index: images.dataset.origin(index) for index in _named(found)} if images else {},
        attention=found.attention,
    )


def _device(found: Measured) -> dict[str, str]:
    """Return what an engine ran on and with, and what makes it another than that of the network."""
    return fingerprint(found.backend) | ({"sample points": "half-pixel"} if found.half_pixel else {})


def _shown(found: Measured) -> tuple[int, ...]:
    return found.comparison.worst if found.comparison else ()


def _named(found: Measured) -> tuple[int, ...]:
    return _shown(found) + (tuple(image.index for image in found.attention.moved) if found.attention else ())


def _provenance(manifest: Manifest, images: ValidationImages | None, reference: str | None) -> Provenance:
    calibration = manifest.calibration
    return Provenance(
        reference=reference,
        checkpoint=f"{manifest.checkpoint.file_name} ({manifest.checkpoint.layout} layout)",
        checkpoint_sha256=manifest.checkpoint.sha256,
        preprocessing=f"{describe(manifest.preprocessing)} ({manifest.preprocessing_source})",
        calibration=f"{calibration.method} on {counted(calibration.images, 'image')} of {calibration.dataset}"
        if calibration
        else None,
        data=f"{images.dataset.name} ({images.dataset.kind})" if images else None,
        labels=images.labels if images else None,
        pairs=images.pairs_note if images else None,
        tools=manifest.tools,
    )
