"""Run a network over calibration images and let one observer watch each of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from ran_deploy.calibration.observers import OBSERVERS, CalibrationMethod, Observer
from ran_deploy.errors import CalibrationError

__all__ = ["MICRO_BATCH", "collect_ranges"]

MICRO_BATCH = 8  # large enough to keep two cores busy, small enough to hold all activations of an Attention-92


def collect_ranges(
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    batches: Iterable[np.ndarray],
    method: CalibrationMethod,
    *,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Return max |x| of each tensor that `run` returns, as `method` defines it, in the order of `run`.

    `batches` are arrays (N, ...) of any N; `run` always sees MICRO_BATCH images at a time, fewer only at the end, so
    how they arrive changes no bit of the result. `progress` hears the number of images done so far.
    Raises: CalibrationError if there are no images, their shapes differ, or a tensor holds NaN or infinity.
    """
    observers: dict[str, Observer] = {}
    images = 0
    for batch in _rebatched(batches):
        for name, array in run(batch).items():
            if not np.isfinite(array).all():
                raise CalibrationError(
                    f"Tensor {name!r} holds NaN or infinity on calibration images {images} to "
                    f"{images + len(batch) - 1}. Check the checkpoint and the --mean and --std it was trained with."
                )
            observers.setdefault(name, OBSERVERS[method]()).update(array)
        images += len(batch)
        if progress is not None:
            progress(images)
    if not images:
        raise CalibrationError("There are no calibration images. Give a few hundred with --calibration-data.")
    return {name: observer.range() for name, observer in observers.items()}


def _rebatched(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same images, MICRO_BATCH at a time; the last batch may be smaller."""
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
