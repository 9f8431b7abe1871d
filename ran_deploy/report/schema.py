"""What a validation report says. These dataclasses are the schema of its JSON: percent, and points of percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ran_deploy.manifest import Task
from ran_deploy.report.details_schema import BudgetSummary, CalibrationSummary, EngineSize, EngineSpeed
from ran_deploy.verification.attention import ModuleFidelity
from ran_deploy.verification.certificate import Certificate
from ran_deploy.verification.embeddings import CosineSummary
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.verification.layer_errors import LayerErrors
from ran_deploy.verification.metrics import LogitErrors
from ran_deploy.verification.same_different import TarAtFar

__all__ = [
    "SCHEMA_VERSION",
    "AttentionFigures",
    "AttentionImage",
    "BundleComparison",
    "BundleDifference",
    "BundleSummary",
    "ChangedImage",
    "ClassFlip",
    "EmbeddingFigures",
    "EngineReport",
    "PairFigures",
    "Provenance",
    "TurnedImage",
    "UnreadableImage",
    "ValidationReport",
]

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class BundleSummary:
    """Which bundle was validated; `sha256` is the bundle's digest."""

    name: str
    sha256: str
    architecture: str
    task: Task
    output_size: int  # number of classes, or of an embedding's features


@dataclass(frozen=True, kw_only=True)
class BundleDifference:
    """One aspect in which two bundles differ, in words: that of the reference, and that of the bundle judged."""

    what: str
    reference: str
    bundle: str


@dataclass(frozen=True, kw_only=True)
class BundleComparison:
    """The other bundle, which takes the place of the reference, and what the two differ in."""

    bundle: BundleSummary
    precision: str
    differences: tuple[BundleDifference, ...]


@dataclass(frozen=True, kw_only=True)
class ChangedImage:
    """One image the engine classifies differently: `index` in the data set, its file, and class names.

    `margin` is by how many logits the reference preferred its own class to the engine's; confidences are 0..1.
    """

    index: int
    file: str | None
    label: str | None
    reference: str
    engine: str
    margin: float
    reference_confidence: float
    engine_confidence: float


@dataclass(frozen=True, kw_only=True)
class ClassFlip:
    """How many images the reference calls `reference` and the engine `engine`."""

    reference: str
    engine: str
    images: int


@dataclass(frozen=True, kw_only=True)
class TurnedImage:
    """One image whose vector turned: `index` in the data set, its file, and how far it is from the reference's."""

    index: int
    file: str | None
    cosine: float
    relative_l2: float | None


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """How well the two tell images of the same from images of different, on `pairs`, of which `same` are of the same.

    Accuracies by the 10-fold protocol of Labeled Faces in the Wild, at the reference's thresholds for both (`threshold`
    is their mean); `tar` at a threshold of each one's own.
    """

    pairs: int
    same: int
    threshold: float
    accuracy_reference: float
    accuracy_engine: float
    tar: tuple[TarAtFar, ...]


@dataclass(frozen=True, kw_only=True)
class EmbeddingFigures:
    """How far an embedding moved: `vectors` over all elements, `cosine` image by image, `turned` the worst first."""

    vectors: LogitErrors
    cosine: CosineSummary
    turned: tuple[TurnedImage, ...]
    pairs: PairFigures | None


@dataclass(frozen=True, kw_only=True)
class AttentionImage:
    """One image whose attention moved: `index` in the data set, its file, and the correlation of its masks by module.

    A correlation is None where the reference's mask is one value everywhere.
    """

    index: int
    file: str | None
    correlations: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class AttentionFigures:
    """How far soft masks moved, on `images` of the data set: each module's, and the worst images first."""

    images: int
    modules: tuple[ModuleFidelity, ...]
    moved: tuple[AttentionImage, ...]


@dataclass(frozen=True, kw_only=True)
class UnreadableImage:
    """One image that cannot be read, or not be prepared as the recipe says: its file, and one sentence why."""

    file: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EngineReport:
    """One engine. What needs labels, or images at all, is None without them.

    `estimate` says that another engine emulated this one's graph: its accuracy here is expected, not measured.
    `device` is what it ran on and with, by readable name (version, platform, GPU, ...): empty for an estimate.
    `changed` are the `changed_images` that are furthest from the reference, at most a few; `flips` come most frequent
    first. `passed` is the verdict's where there is a budget, else the self-test's. `warning` says why the figures may
    mean nothing. `certificate` is what images without labels prove.
    """

    backend: str
    precision: str
    device: Mapping[str, str]
    estimate: bool
    passed: bool
    verdict: str
    images: int
    warning: str | None = None
    top1_reference: float | None = None
    top1_engine: float | None = None
    top5_reference: float | None = None
    top5_engine: float | None = None
    top1_reference_ci95: tuple[float, float] | None = None
    top1_engine_ci95: tuple[float, float] | None = None
    measure: str | None = None  # what drop_pp is of: "Top-1", "Verification accuracy"
    drop_pp: float | None = None
    drop_ci95_pp: tuple[float, float] | None = None
    lost: int | None = None  # images, or pairs of images, that only the reference gets right
    gained: int | None = None  # likewise only the engine
    mcnemar_p: float | None = None
    images_needed: int | None = None
    agreement: float | None = None
    logits: LogitErrors | None = None
    embedding: EmbeddingFigures | None = None
    attention: AttentionFigures | None = None  # of bundles that put out their masks
    self_test: SelfTestResult | None = None
    certificate: Certificate | None = None
    changed_images: int = 0
    changed: tuple[ChangedImage, ...] = ()
    flips: tuple[ClassFlip, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where everything came from.

    `reference` is None where engines only reproduced golden logits. `calibration` is a sentence; `tools` maps the
    packages that made the bundle to their versions. `labels` says how the images' labels became the bundle's classes,
    where that was not by name; `pairs` which images of an embedding's data were compared with which.
    """

    reference: str | None
    checkpoint: str
    checkpoint_sha256: str
    preprocessing: str
    calibration: str | None
    data: str | None
    labels: str | None = None
    pairs: str | None = None
    tools: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """The whole report. Figures at the top are those of the first engine that was measured, not estimated.

    `passed` is true only if every measured engine passed. It and all figures are about `images`; another `unreadable`
    ones of the data set could not be used, of which `unreadable_images` are the first few. `warnings` are to be read
    before any figure. `compared` is the other bundle where two were compared: it is the reference of every engine.
    `kept_in_float` gives the reason by region, `budget` how it was decided. `layers` are those of
    the first measured engine's graph; `layers_missing` says why there are none where they were asked for.
    """

    images: int
    unreadable: int
    unreadable_images: tuple[UnreadableImage, ...]
    top1_reference: float | None
    top1_engine: float | None
    drop_pp: float | None
    drop_ci95_pp: tuple[float, float] | None
    agreement: float | None
    passed: bool
    backend: str
    precision: str
    estimate: bool
    verdict: str
    warnings: tuple[str, ...]
    max_drop_pp: float | None
    bundle: BundleSummary
    engines: tuple[EngineReport, ...]
    provenance: Provenance
    calibration: CalibrationSummary | None = None
    kept_in_float: Mapping[str, str] = field(default_factory=dict)
    budget: BudgetSummary | None = None
    layers: LayerErrors | None = None
    layers_missing: str | None = None
    speeds: tuple[EngineSpeed, ...] = ()
    sizes: tuple[EngineSize, ...] = ()
    created: str  # ISO 8601, UTC
    compared: BundleComparison | None = None
    schema_version: int = SCHEMA_VERSION
