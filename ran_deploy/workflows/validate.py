"""Checking a bundle's engines: against their golden logits, and against the reference network on data."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.datasets import Dataset, Split, digests, open_dataset, refuse_overlap, select_indices
from ran_deploy.errors import ConfigError, DatasetError
from ran_deploy.manifest import Manifest
from ran_deploy.preprocessing import describe, prepare
from ran_deploy.report.building import engine_report, validation_report
from ran_deploy.report.schema import BundleSummary, EngineReport, Provenance, ValidationReport
from ran_deploy.verification.comparison import Comparison, compare
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.workflows.engines import ALL, AUTO, expand_backends, load_engine, prove_engine, runnable_backends
from ran_deploy.workflows.evaluators import Infer, Replayed, checkpoint_reference, emulated_dialect, graph_reference

__all__ = ["ValidateConfig", "Validation", "validate_bundle"]

logger = logging.getLogger(__name__)

BATCH = 32  # images in memory at a time; engines split it as their profile demands

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What to check: without `data` the golden self-test alone, without `reference` against the bundle's FP32 graph.

    `backends` may hold 'auto', the best that can run here, and 'all', which also estimates those that cannot by
    emulating their graph. `max_drop_pp` is in percentage points of top-1.
    """

    bundle: Path
    data: Path | None = None
    reference: Path | None = None
    model: str | None = None
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
        if self.max_drop_pp is not None and not 0 <= self.max_drop_pp <= 100:
            raise ConfigError(f"--max-drop is {self.max_drop_pp}; expected percentage points from 0 to 100.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is {self.limit}; expected at least 1 image.")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The report, and the images it shows: uint8 RGB by index in the data set."""

    report: ValidationReport
    images: Mapping[int, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Data:
    """The readable images of a data set: `indices` are their positions in it."""

    dataset: Dataset
    manifest: Manifest
    indices: list[int]

    @property
    def labelled(self) -> bool:
        return self.dataset.label(self.indices[0]) is not None

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield prepared images with their labels."""
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(self.indices), BATCH):
                chosen = self.indices[start : start + BATCH]
                images = np.stack(list(pool.map(self._prepared, chosen)))
                labels = [self.dataset.label(index) for index in chosen]
                yield images, np.array(labels) if self.labelled else None

    def _prepared(self, index: int) -> np.ndarray:
        return prepare(self.dataset.image(index), self.manifest.preprocessing)


def validate_bundle(
    config: ValidateConfig, report: Report = logger.info, progress: Progress = lambda done, total: None
) -> Validation:
    """Run the self-test of each backend and, with data, compare it with the reference.

    `report` gets a line for each stage, `progress` the images done in it.

    Every file of the bundle is checked first.
    Raises: SelfTestError for an engine with wrong outputs, DatasetError for images used in calibration, and what
    opening bundle, engine, checkpoint or data set raises. An unmet budget is no error: see `report.passed`.
    """
    bundle = open_bundle(config.bundle, require_signature=config.require_signature)
    bundle.verify()  # all of it, also what this run does not use
    manifest = bundle.manifest
    backends = expand_backends(bundle, config.backends, config.cache_dir)
    estimated = _estimated(bundle, config)
    data = _open_data(config, manifest, report, progress) if config.data else None
    engines: list[EngineReport] = []
    comparisons: list[Comparison] = []
    with ExitStack() as stack:
        reference = None
        if data is not None:
            name, infer = _reference(config, bundle, stack)
            report(f"reference: {name}")
            reference = Replayed(infer)
        for backend in backends:
            report(f"{backend}: golden self-test" + (f", then {len(data.indices)} images" if data else ""))
            loaded = load_engine(bundle, backend, cache_dir=config.cache_dir)
            with loaded.predictor as predictor:
                self_test = loaded.self_test or prove_engine(bundle, backend, predictor)
                comparison = _compared(reference, predictor.infer_batch, data, progress)
            engines.append(
                _engine_report(config, manifest, data, backend, comparison, self_test=self_test, estimate=False)
            )
            comparisons += [comparison] if comparison else []
        for backend in estimated if data is not None else ():
            report(f"{backend}: cannot run here, its graph is emulated on {len(data.indices) if data else 0} images")
            emulated = stack.enter_context(emulated_dialect(bundle, BACKENDS[backend]))
            comparison = _compared(reference, emulated, data, progress)
            engines.append(_engine_report(config, manifest, data, backend, comparison, self_test=None, estimate=True))
            comparisons += [comparison] if comparison else []
    return Validation(
        report=validation_report(
            engines,
            bundle=BundleSummary(
                name=manifest.name,
                sha256=bundle.digest,
                architecture=manifest.architecture,
                num_classes=manifest.num_classes,
            ),
            provenance=_provenance(config, manifest, data),
            max_drop_pp=config.max_drop_pp,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        ),
        images=_shown_images(data, comparisons),
    )


def _estimated(bundle: Bundle, config: ValidateConfig) -> list[str]:
    """Return one backend for each dialect of which none can run here, if all were asked for."""
    if ALL not in config.backends:
        return []
    reasons = runnable_backends(bundle, config.cache_dir)
    running = {BACKENDS[backend] for backend, reason in reasons.items() if reason is None}
    missing = {BACKENDS[backend]: backend for backend in reasons if BACKENDS[backend] not in running}
    return list(missing.values())


def _open_data(config: ValidateConfig, manifest: Manifest, report: Report, progress: Progress) -> _Data:
    """Open the data set and read every image once: which can be read, and was any of them calibrated with?"""
    assert config.data is not None
    dataset = open_dataset(config.data, Split.TEST)
    if config.max_drop_pp is not None and dataset.label(0) is None:
        raise ConfigError(f"--max-drop is judged on labelled images; {dataset.name} has no labels.")
    indices = sorted(select_indices(dataset, config.limit or len(dataset)))
    report(f"reading {len(indices)} images of {dataset.name}")
    found = digests(dataset, indices, lambda done: progress(done, len(indices)))
    if not found:
        raise DatasetError(f"No image of {dataset.name} can be read; give other --data.")
    if manifest.calibration is not None:
        refuse_overlap(manifest.calibration.image_sha256, found, dataset)
    if len(found) < len(indices):
        logger.warning("%d of %d images of %s cannot be read", len(indices) - len(found), len(indices), dataset.name)
    return _Data(dataset=dataset, manifest=manifest, indices=list(found))


def _reference(config: ValidateConfig, bundle: Bundle, stack: ExitStack) -> tuple[str, Infer]:
    """Return the reference's name, and what computes its logits."""
    if config.reference is not None:
        return f"{config.reference} in PyTorch", checkpoint_reference(config.reference, config.model, bundle.manifest)
    return "the bundle's FP32 graph", stack.enter_context(graph_reference(bundle))


def _compared(reference: Replayed | None, engine: Infer, data: _Data | None, progress: Progress) -> Comparison | None:
    if reference is None or data is None:
        return None
    total = len(data.indices)
    return compare(reference.start(), engine, data.batches(), progress=lambda done: progress(done, total))


def _engine_report(
    config: ValidateConfig,
    manifest: Manifest,
    data: _Data | None,
    backend: str,
    comparison: Comparison | None,
    *,
    self_test: SelfTestResult | None,
    estimate: bool,
) -> EngineReport:
    files = {}
    if data is not None and comparison is not None:
        files = {d.index: data.dataset.origin(data.indices[d.index]) for d in comparison.disagreements}
    return engine_report(
        backend=backend,
        precision=manifest.precision.value,
        comparison=comparison,
        self_test=self_test,
        max_drop_pp=config.max_drop_pp,
        estimate=estimate,
        class_names=manifest.labels,
        files=files,
    )


def _provenance(config: ValidateConfig, manifest: Manifest, data: _Data | None) -> Provenance:
    calibration = manifest.calibration
    return Provenance(
        reference=str(config.reference) if config.reference else "the bundle's FP32 graph",
        checkpoint=f"{manifest.checkpoint.file_name} ({manifest.checkpoint.layout} layout)",
        checkpoint_sha256=manifest.checkpoint.sha256,
        preprocessing=f"{describe(manifest.preprocessing)} (from {manifest.preprocessing_source})",
        calibration=f"{calibration.method} on {calibration.images} images of {calibration.dataset}"
        if calibration
        else None,
        data=f"{data.dataset.name} ({data.dataset.kind})" if data else None,
        tools=manifest.tools,
    )


def _shown_images(data: _Data | None, comparisons: list[Comparison]) -> dict[int, np.ndarray]:
    if data is None:
        return {}
    shown = {d.index for comparison in comparisons for d in comparison.disagreements}
    return {position: data.dataset.image(data.indices[position]) for position in sorted(shown)}
