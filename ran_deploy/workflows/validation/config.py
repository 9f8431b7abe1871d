"""What a validation is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from ran_deploy.config_fields import conform_fields
from ran_deploy.errors import ConfigError
from ran_deploy.report.attention import ShownAttention
from ran_deploy.report.schema import ValidationReport
from ran_deploy.workflows.engines.loading import AUTO
from ran_deploy.workflows.evaluation.images import ValidationImages

__all__ = ["Progress", "Report", "ValidateConfig", "Validation", "no_progress"]

Report = Callable[[str], None]


class Progress(Protocol):
    """Hears how many images are done, of how many, and a few words on what they show."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


def no_progress(done: int, total: int, note: str = "", /) -> None:
    """Leave progress unheard."""


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """What to check: without images the golden self-test alone, without `reference` against the bundle's FP32 graph.

    Images are `data` or, without labels, `unlabelled`: those are taken in the order of `seed` until the budget is
    proven or out of reach, all of them without a budget. `compare` is another bundle, whose engines take the place of
    the reference.

    `backends` may hold 'auto', the best that can run here, and 'all', which also estimates those that cannot by
    emulating their graph. `pairs` is a file that says which images of an embedding's data show the same; without it
    pairs are made of the classes. `max_drop_pp` is in percentage points of top-1, or of verification accuracy.
    """

    bundle: Path
    data: Path | None = None
    unlabelled: Path | None = None
    reference: Path | None = None
    compare: Path | None = None
    architecture: str | None = None
    model: str | None = None
    pairs: Path | None = None
    backends: tuple[str, ...] = (AUTO,)
    device: str | None = None  # 'cuda:1', a GPU, or 'dla:0', a DLA core
    max_drop_pp: float | None = None
    limit: int | None = None
    seed: int | None = None  # 0 if None
    cache_dir: Path | None = None
    require_signature: Path | None = None
    details: bool = False  # also the error of each layer, and how fast and large the engines are

    def __post_init__(self) -> None:
        conform_fields(self)
        if self.data is not None and self.unlabelled is not None:
            raise ConfigError("--data and --unlabelled are two ways to give images; choose one.")
        if self.data is None and self.unlabelled is None:
            if self.reference is not None:
                raise ConfigError("--reference compares on images; add --data PATH, or --unlabelled PATH.")
            if self.max_drop_pp is not None:
                raise ConfigError("--max-drop is judged on images; add --data PATH with labels, or --unlabelled PATH.")
        if self.compare is not None and (self.reference or self.architecture or self.model):
            raise ConfigError("--compare makes another bundle the reference; leave --reference and its options out.")
        if self.seed is not None and (self.unlabelled is None or self.seed < 0):
            raise ConfigError(f"--seed {self.seed}: expected 0 or more, and --unlabelled PATH whose order it gives.")
        if self.unlabelled is not None and self.max_drop_pp is not None and not 0 < self.max_drop_pp < 100:
            raise ConfigError(
                f"--max-drop is {self.max_drop_pp:g}; without labels expected points above 0 and below 100: no "
                "number of images proves that no other one changes its class."
            )
        if self.pairs is not None and (self.data is None or self.limit is not None):
            raise ConfigError("--pairs names images of --data PATH, and all of them: add --data, leave --limit out.")
        if self.max_drop_pp is not None and not 0 <= self.max_drop_pp <= 100:
            raise ConfigError(f"--max-drop is {self.max_drop_pp}; expected percentage points from 0 to 100.")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit is {self.limit}; expected at least 1 image.")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The report, and what it shows: images, uint8 RGB by index in the data set, and masks by backend.

    `data` are the images that figures are about, None where only golden inputs ran.
    """

    report: ValidationReport
    images: Mapping[int, np.ndarray]
    data: ValidationImages | None = None
    attention: Mapping[str, tuple[ShownAttention, ...]] = field(default_factory=dict)
