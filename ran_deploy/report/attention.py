"""What a report says of soft masks, and the pictures that its page shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ran_deploy.errors import BackendUnavailableError
from ran_deploy.overlays import mask_range, overlay, range_text
from ran_deploy.report.schema import AttentionFigures, AttentionImage, EngineReport
from ran_deploy.report.thumbnails import png_data_uri
from ran_deploy.verification.attention import AttentionComparison

__all__ = ["AttentionSection", "ShownAttention", "attention_figures", "attention_sections"]

MOST_MODULES = 6  # side by side; a CIFAR net of 452 layers has 36
SMALLEST = 96  # pixels: smaller images are enlarged, as an interpolated mask on 32 pixels is a mosaic


@dataclass(frozen=True, kw_only=True)
class ShownAttention:
    """One image as the network sees it, uint8 RGB (H, W, 3), and by name of the module its masks (h, w)."""

    index: int
    image: np.ndarray
    reference: Mapping[str, np.ndarray]
    engine: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class MaskPair:
    """One module's two masks over one image, as data URIs with one scale, and their correlation."""

    name: str
    correlation: float | None
    scale: str
    reference: str
    engine: str


@dataclass(frozen=True, kw_only=True)
class MaskRow:
    """One image with the pairs that are shown of it; `left_out` counts the others."""

    image: AttentionImage
    picture: str
    pairs: tuple[MaskPair, ...]
    left_out: int


@dataclass(frozen=True, kw_only=True)
class AttentionSection:
    """What the page says of one engine's attention."""

    engine: EngineReport
    figures: AttentionFigures
    rows: tuple[MaskRow, ...]


def attention_figures(comparison: AttentionComparison, files: Mapping[int, str]) -> AttentionFigures:
    """Return the figures; `files` name images by index."""
    moved = tuple(
        AttentionImage(index=image.index, file=files.get(image.index), correlations=image.correlations)
        for image in comparison.moved
    )
    return AttentionFigures(images=comparison.images, modules=comparison.modules, moved=moved)


def attention_sections(
    engines: Sequence[EngineReport], shown: Mapping[str, Sequence[ShownAttention]]
) -> list[AttentionSection]:
    """Return a section for each engine with attention; `shown` are the masks to draw by backend.

    Without OpenCV there are no pictures.
    """
    sections = []
    for engine in engines:
        if engine.attention is None:
            continue
        masks = {image.index: image for image in shown.get(engine.backend, ())}
        try:
            rows = tuple(_row(image, masks[image.index]) for image in engine.attention.moved if image.index in masks)
        except BackendUnavailableError:
            rows = ()
        sections.append(AttentionSection(engine=engine, figures=engine.attention, rows=rows))
    return sections


def _row(image: AttentionImage, shown: ShownAttention) -> MaskRow:
    lowest = sorted(shown.reference, key=lambda name: _rank(image.correlations.get(name)))[:MOST_MODULES]
    picture = _enlarged(shown.image)
    return MaskRow(
        image=image,
        picture=png_data_uri(picture),
        pairs=tuple(_pair(name, image, shown, picture) for name in shown.reference if name in lowest),
        left_out=len(shown.reference) - len(lowest),
    )


def _rank(correlation: float | None) -> float:
    return np.inf if correlation is None else correlation


def _pair(name: str, image: AttentionImage, shown: ShownAttention, picture: np.ndarray) -> MaskPair:
    masks = shown.reference[name], shown.engine[name]
    low, high = mask_range(*masks)
    reference, engine = (png_data_uri(overlay(picture, mask, low, high)) for mask in masks)
    return MaskPair(
        name=name,
        correlation=image.correlations.get(name),
        scale=" to ".join(range_text(low, high)),
        reference=reference,
        engine=engine,
    )


def _enlarged(image: np.ndarray) -> np.ndarray:
    step = -(-SMALLEST // max(image.shape[:2]))
    return image.repeat(step, axis=0).repeat(step, axis=1)
