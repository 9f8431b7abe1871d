"""The manifest of a bundle: its schema, and reading and writing it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import msgspec

from ran_deploy.budget_record import BudgetRecord
from ran_deploy.config_fields import conform_fields
from ran_deploy.counts import counted
from ran_deploy.errors import BundleError, ConfigError
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.text import json_document

__all__ = [
    "LARGEST_BATCH",
    "SCHEMA_VERSION",
    "AttentionRecord",
    "BatchProfile",
    "CalibrationRecord",
    "CheckpointRecord",
    "DialectRecord",
    "EngineRecord",
    "EqualizationRecord",
    "FileRecord",
    "GoldenRecord",
    "Manifest",
    "RangeChange",
    "SelfTestStatus",
    "Task",
    "manifest_from_json",
    "manifest_to_json",
]

SCHEMA_VERSION = 1
LARGEST_BATCH = 4096  # beyond any network and device: a slip of the keyboard


class Task(str, Enum):
    """What the output vector means: a logit for each class, or features that are compared by their angle.

    Each part of the project that reads outputs has one place that knows tasks: `runtime.answers` for results,
    `verification.golden_rows` for the self-test, `workflows.evaluation.tasks` for the comparison on data.
    """

    CLASSIFICATION = "classification"
    EMBEDDING = "embedding"

    def counted(self, output_size: int) -> str:
        """Return what the outputs have so many of: '10 classes', '512 features'."""
        singular, plural = ("class", "classes") if self is Task.CLASSIFICATION else ("feature", "features")
        return counted(output_size, singular, plural)


class SelfTestStatus(str, Enum):
    """Outcome of the golden self-test on the machine that exported: pending where the engine could not run there."""

    PASSED = "passed"
    PENDING = "pending"


@dataclass(frozen=True, kw_only=True)
class BatchProfile:
    """Batch sizes an engine is built for."""

    minimum: int = 1
    optimum: int = 8
    maximum: int = 32

    def __post_init__(self) -> None:
        conform_fields(self)
        if not 1 <= self.minimum <= self.optimum <= self.maximum:
            raise ConfigError(f"Batch sizes are {self}; expected 1 <= MIN <= OPT <= MAX.")
        if self.maximum > LARGEST_BATCH:
            raise ConfigError(f"The largest batch is {self.maximum:,}; expected at most {LARGEST_BATCH} images.")

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"

    def taking(self, size: int) -> BatchProfile:
        """Return the nearest sizes with `size` among them; where there is but one, that one alone, as DLA wants it."""
        if self.minimum == self.maximum:
            return BatchProfile(minimum=size, optimum=size, maximum=size)
        return replace(self, minimum=min(self.minimum, size), maximum=max(self.maximum, size))


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Digest and size of one file of the bundle."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """Where the weights came from."""

    file_name: str
    sha256: str
    layout: str
    parameters: int


@dataclass(frozen=True, kw_only=True)
class RangeChange:
    """How far the calibrated ranges moved when the first `images_before` images grew to the first `images`.

    Of each tensor |before - after| / after, 0 to 1 where ranges can only grow: `median` over all tensors, and `worst`
    with the tensor it is of.
    """

    images_before: int
    images: int
    median: float
    worst: float
    worst_tensor: str


@dataclass(frozen=True, kw_only=True)
class EqualizationRecord:
    """How many channels, of how many tensors, were scaled before calibration, and by which power of two at most.

    The outputs are the same: what makes a channel and what reads it were scaled against each other.
    """

    tensors: int
    channels: int
    largest_factor: float


@dataclass(frozen=True, kw_only=True)
class CalibrationRecord:
    """How activation ranges were found. `image_sha256` are digests of decoded pixels, so copies are recognised.

    `stability` has an entry for each doubling of the images, the last of which ends at all of them: whether more would
    have moved the ranges. Empty with fewer than 16 images. `chosen` says, where the method chooses among others tensor
    by tensor, how many tensors took the range of each.
    """

    method: str
    dataset: str
    images: int
    image_sha256: tuple[str, ...]
    stability: tuple[RangeChange, ...] = ()
    chosen: dict[str, int] = field(default_factory=dict)
    equalization: EqualizationRecord | None = None


@dataclass(frozen=True, kw_only=True)
class DialectRecord:
    """One engine family's graph. `spread` is the relative L2 distance between two CPU evaluations of it.

    The rest compares it with PyTorch on the golden inputs.
    """

    graph: str
    spread: float
    relative_l2: float
    label_agreement: float | None  # 0..1; None for an embedding, which has no labels

    def __post_init__(self) -> None:
        # The golden self-test allows three times the spread: beyond 1 every engine would pass.
        if not 0 <= self.spread <= 1:
            raise ConfigError(f"The spread of {self.graph} is {self.spread:g}; expected 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class AttentionRecord:
    """One attention module whose mask every graph also puts out: its mean over channels, float32 (N, height, width).

    `module` is the path of the module in the network, `name` what people call it.
    """

    name: str
    module: str
    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ConfigError(f"The mask of {self.name} is {self.height}x{self.width}; expected at least 1x1.")

    @property
    def output(self) -> str:
        """The name of the graph output."""
        return f"attention/{self.name}"


@dataclass(frozen=True, kw_only=True)
class GoldenRecord:
    """The golden inputs: their number, and whether they are images of the user's or synthetic."""

    inputs: int
    source: str


@dataclass(frozen=True, kw_only=True)
class EngineRecord:
    """One engine made at export: what it needs to run, and whether it has proven itself.

    `file` is None where engines are bound to one CPU and made again, in a second, on each device.
    """

    backend: str
    file: str | None
    # What it requires where it is loaded: version, platform, device, ...; values or ranges, see requirements.py.
    fingerprint: dict[str, str]
    batch: BatchProfile
    self_test: SelfTestStatus


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything a reader needs before it touches another file of the bundle."""

    name: str
    task: Task
    architecture: str
    output_size: int  # number of classes, or of an embedding's features
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing
    preprocessing_source: str
    precision: Precision
    kept_in_float: dict[str, str]  # region -> reason
    checkpoint: CheckpointRecord
    calibration: CalibrationRecord | None
    golden: GoldenRecord
    dialects: dict[str, DialectRecord]
    engines: tuple[EngineRecord, ...]
    batch: BatchProfile
    tools: dict[str, str]  # package -> version
    files: dict[str, FileRecord]
    created: str  # ISO 8601, UTC
    schema_version: int = SCHEMA_VERSION
    min_reader_version: int = SCHEMA_VERSION
    notes: tuple[str, ...] = field(default=())
    attention: tuple[AttentionRecord, ...] = field(default=())  # in the order of the graphs' outputs, behind the logits
    budget: BudgetRecord | None = None

    def __post_init__(self) -> None:
        if self.output_size < 1:
            raise ConfigError(f"There are {self.task.counted(self.output_size)}; expected at least 1.")
        if self.labels is not None and self.task is Task.EMBEDDING:
            raise ConfigError(f"There are {counted(len(self.labels), 'label')} for an embedding; it has no classes.")
        if self.labels is not None and len(self.labels) != self.output_size:
            raise ConfigError(
                f"There are {counted(len(self.labels), 'label')} for {self.task.counted(self.output_size)}."
            )


def manifest_to_json(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON."""
    return json_document(manifest) + b"\n"


def manifest_from_json(data: bytes, origin: str) -> Manifest:
    """Return the manifest `data` holds.

    Raises: BundleError, naming `origin`, if it is not JSON, of a newer schema, or not of the schema's types and values.
    """
    try:
        header: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BundleError(
            f"{origin}: manifest.json is not JSON ({exc}). The bundle is damaged: export it again."
        ) from exc
    needed = header.get("min_reader_version") if isinstance(header, dict) else None
    if isinstance(needed, int) and needed > SCHEMA_VERSION:
        raise BundleError(
            f"{origin} needs a reader of schema {needed}; this ran-deploy reads up to {SCHEMA_VERSION}. Upgrade it."
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.ValidationError, UnicodeDecodeError, ConfigError) as exc:
        reason = str(exc).rstrip(".")
        raise BundleError(
            f"{origin}: manifest.json does not follow the schema ({reason}). Export the bundle again."
        ) from exc
