"""Soft masks drawn over the image they are of."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ran_deploy.images import import_cv2
from ran_deploy.preprocessing import ChannelOrder, Preprocessing

__all__ = ["attention_panels", "displayed", "mask_range", "overlay", "range_text"]

SMALLEST, LARGEST = 160, 448  # longest side of a panel: small images are enlarged in whole steps, large ones shrunk
MOST_COLUMNS = 7
GAP, STRIP = 8, 44  # pixels between panels, and above each for its name and scale
BACKGROUND, INK, FAINT = 26, (237, 237, 237), (158, 158, 158)
COLOUR_SHARE = 0.6  # of an overlay; the rest is the image in grey, so that every colour is the mask's
BAR = (56, 8)  # width and height of the colour scale


def displayed(prepared: np.ndarray, recipe: Preprocessing) -> np.ndarray:
    """Return what an engine takes, uint8 (H, W, 3) in the network's channel order, as RGB."""
    return prepared[:, :, ::-1] if recipe.channel_order is ChannelOrder.BGR else prepared


def mask_range(*masks: np.ndarray) -> tuple[float, float]:
    """Return the smallest and the largest value of `masks` together; NaN where one is not finite."""
    if not all(np.isfinite(mask).all() for mask in masks):
        return math.nan, math.nan
    return min(float(mask.min()) for mask in masks), max(float(mask.max()) for mask in masks)


def range_text(low: float, high: float) -> tuple[str, str]:
    """Return both ends with as many digits as tell them apart, two to four."""
    width = high - low
    digits = min(4, max(2, 1 - math.floor(math.log10(width)))) if width > 0 else 2
    return f"{low:.{digits}f}", f"{high:.{digits}f}"


def overlay(image: np.ndarray, mask: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return `image`, uint8 RGB (H, W, 3), in grey under the colours of `mask`, float (h, w): uint8 RGB (H, W, 3).

    The mask is interpolated to the image's size; `low` to `high` is dark blue through green to yellow (viridis, even in
    lightness and told apart by the colour-blind). A mask without a range, or that is not finite, is all `low`.
    Raises: BackendUnavailableError without OpenCV.
    """
    cv2 = import_cv2()
    height, width = image.shape[:2]
    share = (mask - low) / (high - low) if high > low else np.zeros(mask.shape)
    steps = (255 * np.clip(share, 0, 1)).astype(np.float32)
    grown = cv2.resize(steps, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(cv2.applyColorMap(cv2.convertScaleAbs(grown), cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(colours, COLOUR_SHARE, grey, 1 - COLOUR_SHARE, 0))


def attention_panels(image: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return one picture, uint8 RGB: the image, uint8 RGB (H, W, 3), then each mask (h, w) over it under its name.

    Each mask has a colour scale of its own, from its smallest to its largest value, which stands beside the name; a
    mask of one value says so. More than MOST_COLUMNS panels go on in further lines.
    """
    shown = _sized(image)
    panels = [_captioned(shown, "image", None)]
    for name, mask in masks.items():
        low, high = mask_range(mask)
        panels.append(_captioned(overlay(shown, mask, low, high), name, (low, high)))
    return _tiled(panels)


def _sized(image: np.ndarray) -> np.ndarray:
    cv2 = import_cv2()
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > LARGEST:
        size = [max(1, round(side * LARGEST / longest)) for side in (width, height)]
        return np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA))
    step = math.ceil(SMALLEST / longest)
    return image.repeat(step, axis=0).repeat(step, axis=1)


def _captioned(picture: np.ndarray, name: str, scale: tuple[float, float] | None) -> np.ndarray:
    """Return the picture under a strip with its name and colour scale, no narrower than these need."""
    height, width = picture.shape[:2]
    panel = np.full((STRIP + height, max(width, SMALLEST), 3), BACKGROUND, np.uint8)
    panel[STRIP:, :width] = picture
    _write(panel, _fitting(name, panel.shape[1]), (2, 15), INK)
    if scale is not None:
        _draw_scale(panel, *scale)
    return panel


def _draw_scale(panel: np.ndarray, low: float, high: float) -> None:
    cv2 = import_cv2()
    if math.isnan(low):
        _write(panel, "not finite", (2, 34), FAINT)
        return
    left, right = range_text(low, high)
    if low == high:
        _write(panel, f"{left} everywhere", (2, 34), FAINT)
        return
    end = _write(panel, left, (2, 34), FAINT) + 6
    ramp = np.linspace(0, 255, BAR[0]).astype(np.uint8)[None]
    panel[26 : 26 + BAR[1], end : end + BAR[0]] = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
    _write(panel, right, (end + BAR[0] + 6, 34), FAINT)


def _write(panel: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> int:
    """Write a line in OpenCV's own font, which has ASCII alone, and return where it ends."""
    cv2 = import_cv2()
    shown = text.encode("ascii", "replace").decode()
    cv2.putText(panel, shown, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return place[0] + _width(shown)


def _width(text: str) -> int:
    cv2 = import_cv2()
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0])


def _fitting(name: str, width: int) -> str:
    """Return the name, or its end behind dots: what tells modules apart stands there."""
    shown = name
    while _width(shown) > width - 4 and len(name) > 1:
        name = name[1:]
        shown = f"...{name}"
    return shown


def _tiled(panels: list[np.ndarray]) -> np.ndarray:
    """Return equal panels side by side, in lines."""
    height, width = panels[0].shape[:2]
    columns = min(len(panels), MOST_COLUMNS + 1)
    lines = math.ceil(len(panels) / columns)
    size = (GAP + lines * (height + GAP), GAP + columns * (width + GAP), 3)
    picture = np.full(size, BACKGROUND, np.uint8)
    for number, panel in enumerate(panels):
        top = GAP + number // columns * (height + GAP)
        left = GAP + number % columns * (width + GAP)
        picture[top : top + height, left : left + width] = panel
    return picture
