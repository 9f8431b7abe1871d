"""Run a network over calibration images once and count what each of its tensors holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np

from ran_deploy.calibration.histogram import Histogram
from ran_deploy.calibration.methods import RANGE_RULES, CalibrationMethod
from ran_deploy.errors import CalibrationError

__all__ = ["MICRO_BATCH", "Ranges", "RangesByImages", "collect_ranges", "halvings", "sum_outputs"]

MICRO_BATCH = 8  # large enough to keep two cores busy, small enough to hold all activations of an Attention-92

Ranges = dict[str, float]
RangesByImages = dict[int, dict[CalibrationMethod, Ranges]]


def collect_ranges(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    batches: Iterable[np.ndarray],
    methods: Collection[CalibrationMethod] = tuple(RANGE_RULES),
    *,
    after: Collection[int] = (),
    progress: Callable[[int], None] | None = None,
) -> RangesByImages:
    """Return the ranges of each tensor that `run` returns by each method, from one pass: {images: {method: ranges}}.

    The last entry is of all images; those before are of the first `after` images, see `halvings`. `methods` are any of
    RANGE_RULES. `batches` are arrays (N, ...) of any N; `run` always sees MICRO_BATCH images at a time, fewer only at
    the end, so how they arrive changes no bit of the result. `progress` hears the number of images done so far.
    Memory: one histogram a tensor, however many images there are.
    Raises: CalibrationError if there are no images, their shapes differ, or a tensor holds NaN or infinity.
    """
    histograms: dict[str, Histogram] = {}
    found: RangesByImages = {}
    images = 0
    for batch in rebatched(batches):
        for name, array in run(batch).items():
            if not np.isfinite(array).all():
                raise CalibrationError(
                    f"Tensor {name!r} holds NaN or infinity on calibration images {images} to "
                    f"{images + len(batch) - 1}. Check the checkpoint and the --mean and --std it was trained with."
                )
            histograms.setdefault(name, Histogram()).add(array)
        images += len(batch)
        if images in after:
            found[images] = _ranges(histograms, methods)
        if progress is not None:
            progress(images)
    if not images:
        raise CalibrationError("There are no calibration images. Give a few hundred with --calibration-data.")
    if images not in found:
        found[images] = _ranges(histograms, methods)
    return found


def sum_outputs(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    batches: Iterable[np.ndarray],
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Return the sum over all images of each output of `run`, which is a sum over the images of its batch.

    `run` sees micro-batches, as in `collect_ranges`. Raises: CalibrationError if the shapes of images differ.
    """
    sums: dict[str, float] = {}
    images = 0
    for batch in rebatched(batches):
        for name, value in run(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value)
        images += len(batch)
        if progress is not None:
            progress(images)
    return sums


def _ranges(
    histograms: Mapping[str, Histogram], methods: Collection[CalibrationMethod]
) -> dict[CalibrationMethod, Ranges]:
    return {
        method: {name: RANGE_RULES[method](histogram) for name, histogram in histograms.items()} for method in methods
    }


def halvings(images: int, times: int = 3) -> tuple[int, ...]:
    """Return about an eighth, a quarter and a half of `images`, in whole micro-batches, as far as there are as many."""
    parts = (images // 2**power // MICRO_BATCH * MICRO_BATCH for power in range(times, 0, -1))
    return tuple(dict.fromkeys(part for part in parts if part))


def rebatched(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same images, MICRO_BATCH at a time; the last batch may be smaller.

    Raises: CalibrationError if their shapes or types differ.
    """
    pending: list[np.ndarray] = []
    for batch in batches:
        for image in batch:
            if pending and (image.shape, image.dtype) != (pending[0].shape, pending[0].dtype):
                raise CalibrationError(
                    f"Calibration images differ: {image.dtype} {image.shape} after {pending[0].dtype} "
                    f"{pending[0].shape}. Prepare all with one recipe."
                )
            pending.append(image)
            if len(pending) == MICRO_BATCH:
                yield np.stack(pending)
                pending = []
    if pending:
        yield np.stack(pending)
