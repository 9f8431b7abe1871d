"""The recipe that turns a decoded image into what an engine takes, and the one place that executes it.

Mean and standard deviation are part of the recipe but are applied inside the graph: an engine takes uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np

from ran_deploy.errors import ConfigError, InputError, ShapeError
from ran_deploy.images import MAX_PIXELS, import_cv2

__all__ = ["ChannelOrder", "Interpolation", "Preprocessing", "describe", "prepare"]


class Interpolation(str, Enum):
    """How pixels are interpolated on resizing."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class ChannelOrder(str, Enum):
    """The order of the three channels a network was trained with."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Resize, centre crop, channel order; then, in the graph, (x / 255 - mean) / std.

    `resize` is None (keep the size), one number (the shorter side, aspect kept) or (height, width). `crop` is the
    engine's input (height, width): cut from the centre, and padded with zeros where the image is smaller. `mean` and
    `std` are in the network's channel order, for pixels scaled to 0..1. `antialias` is that of torchvision and Pillow.
    """

    crop: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    interpolation: Interpolation = Interpolation.BILINEAR
    antialias: bool = True
    channel_order: ChannelOrder = ChannelOrder.RGB
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        resize = self.resize if isinstance(self.resize, tuple) else () if self.resize is None else (self.resize,)
        if min(*self.crop, *resize) < 1:
            raise ConfigError(f"Pre-processing sizes must be positive; found resize {self.resize}, crop {self.crop}.")
        if not all(0 < value < math.inf for value in self.std):
            raise ConfigError(f"Standard deviations must be positive; found {_numbers(self.std)}.")
        if not all(0 <= value <= 1 for value in self.mean):
            raise ConfigError(
                f"Means are {_numbers(self.mean)}; expected 0 to 1, as pixels are scaled to that. Divide by 255."
            )


def describe(recipe: Preprocessing) -> str:
    """Return the recipe as a phrase for people, in the order of execution."""
    steps = []
    if recipe.resize is not None:
        size = f"{recipe.resize[0]}x{recipe.resize[1]}" if isinstance(recipe.resize, tuple) else recipe.resize
        side = "" if isinstance(recipe.resize, tuple) else "shorter side "
        smooth = "" if recipe.antialias or recipe.interpolation is Interpolation.NEAREST else ", no antialias"
        steps.append(f"resize {side}to {size} ({recipe.interpolation.value}{smooth})")
    steps.append(f"centre crop {recipe.crop[0]}x{recipe.crop[1]}")
    steps.append(recipe.channel_order.value.upper())
    steps.append(f"mean {_numbers(recipe.mean)}, std {_numbers(recipe.std)}")
    return ", ".join(steps)


def _numbers(values: tuple[float, ...]) -> str:
    """Return the values with spaces between, or one where all are equal."""
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))


def prepare(image: np.ndarray, recipe: Preprocessing) -> np.ndarray:
    """Return what the engine takes for one image: uint8 (crop height, crop width, 3) in the recipe's channel order.

    `image` is uint8 RGB (H, W, 3). Antialiased resizing is Pillow's (so torchvision's on PIL images) to the
    bit; without antialias it is OpenCV's INTER_LINEAR or INTER_CUBIC; nearest is Pillow's, either way.
    Raises: ShapeError for another shape or type.
    """
    if not isinstance(image, np.ndarray):
        raise ShapeError(
            f"An image is of type {type(image).__name__}; a NumPy array, uint8 RGB (H, W, 3), is needed. "
            "ran_deploy.images.read_image reads a file as one."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ShapeError(f"An image has type {image.dtype} and shape {image.shape}; uint8 RGB (H, W, 3) is needed.")
    resized = _resized_size(image.shape[:2], recipe.resize)
    rows, columns = (_Window.centred(n, crop) for n, crop in zip(resized, recipe.crop, strict=True))
    pixels = _resized_window(image, resized, rows, columns, recipe)
    if recipe.channel_order is ChannelOrder.BGR:
        pixels = pixels[:, :, ::-1]
    if pixels.shape[:2] != recipe.crop:
        pixels = np.pad(pixels, (rows.padding, columns.padding, (0, 0)))
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class _Window:
    """The part of one axis of the resized image that is kept, and the zeros put before and after it."""

    start: int
    stop: int
    padding: tuple[int, int]

    @classmethod
    def centred(cls, size: int, crop: int) -> _Window:
        """Place a crop as torchvision's CenterCrop does, which rounds halves to even when it cuts."""
        if crop >= size:
            return cls(0, size, ((crop - size) // 2, (crop - size + 1) // 2))
        start = round((size - crop) / 2)
        return cls(start, start + crop, (0, 0))


def _resized_size(size: tuple[int, ...], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Return (height, width) after resizing; one number is the shorter side, the longer is rounded down."""
    height, width = size
    if resize is None:
        return height, width
    if isinstance(resize, tuple):
        return resize
    long = int(resize * max(size) / min(size))
    return (resize, long) if height <= width else (long, resize)


def _resized_window(
    image: np.ndarray, size: tuple[int, int], rows: _Window, columns: _Window, recipe: Preprocessing
) -> np.ndarray:
    """Return the kept window of `image` resized to `size`, computing no more than that window where we can."""
    height, width = image.shape[:2]
    if size == (height, width):
        return image[rows.start : rows.stop, columns.start : columns.stop]
    if recipe.interpolation is Interpolation.NEAREST:
        kept_rows = _nearest_indices(height, size[0])[rows.start : rows.stop]
        kept_columns = _nearest_indices(width, size[1])[columns.start : columns.stop]
        return image[kept_rows[:, None], kept_columns]
    if not recipe.antialias:
        return _cv2_resized(image, size, recipe.interpolation)[rows.start : rows.stop, columns.start : columns.stop]
    # Across, then down, with 8 bits between, where bicubic overshoot is clipped: Pillow's order. Pillow 13 reversed it
    # for images that shrink much more in height than in width; networks in the field were trained with the older one.
    vertical = _bands(height, size[0], rows.start, rows.stop, recipe.interpolation)
    horizontal = _bands(width, size[1], columns.start, columns.stop, recipe.interpolation)
    first, last = vertical[0].start, vertical[-1].stop
    across = _resampled(image[first:last].swapaxes(0, 1), horizontal).swapaxes(0, 1)
    return _resampled(across, vertical, offset=first)


def _nearest_indices(size: int, resized: int) -> np.ndarray:
    """Return the source index of each resized pixel; positions are summed up, as Pillow does, to round like it."""
    steps = np.full(resized, size / resized)
    steps[0] /= 2
    return np.minimum(np.cumsum(steps).astype(np.intp), size - 1)


def _cv2_resized(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    height, width = size
    if height * width > MAX_PIXELS:
        raise InputError(
            f"An image of {image.shape[1]}x{image.shape[0]} would be resized to {width}x{height}, more than "
            f"{MAX_PIXELS} pixels. Crop it first, or resize with antialias."
        )
    cv2 = import_cv2()
    flag = {Interpolation.BILINEAR: cv2.INTER_LINEAR, Interpolation.BICUBIC: cv2.INTER_CUBIC}[interpolation]
    return cv2.resize(image, (width, height), interpolation=flag)


@dataclass(frozen=True)
class _Band:
    """Weights (outputs, stop - start) of a few neighbouring outputs over the inputs they reach."""

    start: int
    stop: int
    weights: np.ndarray


def _resampled(pixels: np.ndarray, bands: tuple[_Band, ...], offset: int = 0) -> np.ndarray:
    """Contract the first axis with `bands`, whose input 0 is at -`offset`: uint8 (n, m, 3) -> uint8 (outputs, m, 3)."""
    result = np.empty((sum(len(band.weights) for band in bands), *pixels.shape[1:]), np.uint8)
    done = 0
    for band in bands:
        outputs = len(band.weights)
        step = max(1, ONE_THREAD // (band.weights.size * pixels.shape[2]))
        for left in range(0, pixels.shape[1], step):
            source = pixels[band.start - offset : band.stop - offset, left : left + step].astype(np.float64, order="C")
            sums = band.weights @ source.reshape(len(source), -1)
            sums += 0.5  # truncated on assignment: halves are rounded up, as in Pillow
            np.clip(sums, 0, 255, out=sums)
            result[done : done + outputs, left : left + step] = sums.reshape(outputs, *source.shape[1:])
        done += outputs
    return result


# OpenBLAS computes a product of up to this many multiplications in the calling thread, and wakes others for a larger
# one: they would compete with the other decoding threads and with inference (three times slower on 2 busy cores).
ONE_THREAD = 2**18
WEIGHT_UNIT = 2.0**-22  # Pillow's fixed point; sums of such weights times bytes are exact in float64
OUTPUTS_PER_BAND = 16  # 8 to 32 are about equally fast; one band for all costs many times the arithmetic


@lru_cache(maxsize=256)
def _bands(size: int, resized: int, start: int, stop: int, interpolation: Interpolation) -> tuple[_Band, ...]:
    """Return the antialiasing weights from `size` inputs to the outputs [start, stop) of `resized`, in bands.

    Source: the definition of Pillow's convolution resampling: a kernel stretched by the shrink factor around each
    output's centre, taken at the centres of the inputs it reaches, normalised to sum 1.
    """
    kernel, support = KERNELS[interpolation]
    scale = size / resized
    stretch = max(scale, 1.0)
    reach = support * stretch
    bands = []
    for first in range(start, stop, OUTPUTS_PER_BAND):
        centres = (np.arange(first, min(first + OUTPUTS_PER_BAND, stop)) + 0.5) * scale
        low = np.maximum(np.trunc(centres - reach + 0.5), 0)[:, None]
        high = np.minimum(np.trunc(centres + reach + 0.5), size)[:, None]
        inputs = np.arange(int(low.min()), int(high.max()))
        weights = kernel(np.abs(inputs + 0.5 - centres[:, None]) / stretch) * ((inputs >= low) & (inputs < high))
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(_Band(int(inputs[0]), int(inputs[-1]) + 1, np.rint(weights / WEIGHT_UNIT) * WEIGHT_UNIT))
    return tuple(bands)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - x, 0)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Return Keys' cubic kernel with a = -0.5 for x >= 0. Source: Keys 1981, equation 15, IEEE Trans. ASSP 29(6)."""
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


Kernel = Callable[[np.ndarray], np.ndarray]
KERNELS: dict[Interpolation, tuple[Kernel, float]] = {
    Interpolation.BILINEAR: (_triangle, 1.0),
    Interpolation.BICUBIC: (_cubic, 2.0),
}
