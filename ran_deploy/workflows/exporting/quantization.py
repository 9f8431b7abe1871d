"""Calibrating a float graph on images and writing INT8 into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import sha256_of
from ran_deploy.calibration import (
    RANGE_RULES,
    CalibrationMethod,
    CalibrationTable,
    RangesByImages,
    collect_channel_sizes,
    collect_ranges,
    data_digest,
    halvings,
    range_changes,
)
from ran_deploy.converters.equalize import equalize, find_equalizable
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.quantize import find_calibrated_tensors, insert_qdq, with_outputs
from ran_deploy.counts import counted
from ran_deploy.datasets import Dataset, image_digest, select_indices, unreadable
from ran_deploy.errors import CalibrationError, InputError
from ran_deploy.manifest import CalibrationRecord, EqualizationRecord
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.runtime.backends.ort import open_reference
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.workflows.exporting.range_choice import chosen_methods

PROBED_IMAGES = 64  # of the calibration images choose among ranges: an error is a mean over many pixels

__all__ = [
    "CalibrationImages",
    "Quantized",
    "calibration_images",
    "equalized",
    "int8_graph",
    "measured_ranges",
    "quantized",
    "requantized",
]


@dataclass(frozen=True, kw_only=True)
class CalibrationImages:
    """What the ranges are measured on: prepared uint8 (N, H, W, 3), and the digests of the images they came from.

    `left_out` says how many images of those chosen could not be read, and why the first; None if all could.
    """

    dataset: str
    prepared: np.ndarray
    digests: tuple[str, ...]
    left_out: str | None = None
    labels: tuple[int | None, ...] = ()  # of the images in `prepared`


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """The INT8 artifact graph, the table it was made with, and what the manifest says of it."""

    model: ir.Model
    table: CalibrationTable
    record: CalibrationRecord


def calibration_images(dataset: Dataset, count: int, recipe: Preprocessing) -> CalibrationImages:
    """Choose `count` images, balanced over classes, and prepare them. Raises: CalibrationError if none can be read."""
    prepared, digests, labels = [], [], []
    broken: list[tuple[str, str]] = []
    chosen = select_indices(dataset, count)
    for index in chosen:
        try:
            image = dataset.image(index)
            prepared.append(prepare(image, recipe))
        except InputError as exc:
            broken.append(unreadable(dataset, index, exc))
            continue  # a broken file among thousands must not stop an export
        digests.append(image_digest(image))
        labels.append(dataset.label(index))
    if not prepared:
        raise CalibrationError(f"No image of {dataset.name} can be read; give images to calibrate with.")
    left_out = None
    if broken:
        total = counted(len(chosen), "calibration image")
        file, reason = broken[0]
        left_out = f"left out {len(broken):,} of {total} that cannot be read; the first is {file!r}: {reason}"
    return CalibrationImages(
        dataset=dataset.name,
        prepared=np.stack(prepared),
        digests=tuple(digests),
        left_out=left_out,
        labels=tuple(labels),
    )


def equalized(
    model: ir.Model, images: CalibrationImages, *, progress: Callable[[int], None] | None = None
) -> tuple[ir.Model, EqualizationRecord]:
    """Return a float graph that computes the same, its channels scaled to be easier on int8, and what was scaled.

    `model` is the float graph that takes uint8; it never changes.
    """
    names = [place.tensor for place in find_equalizable(model.graph)]
    twin = model.clone()
    if not names:
        return twin, equalize(twin, {})
    observed = open_reference(model_bytes(with_outputs(model, names)))
    try:
        sizes = collect_channel_sizes(
            lambda batch: _only(names, observed.infer({INPUT: batch})), [images.prepared], progress=progress
        )
    finally:
        observed.close()
    return twin, equalize(twin, sizes)


def measured_ranges(
    model: ir.Model,
    images: CalibrationImages,
    methods: Collection[CalibrationMethod] = tuple(RANGE_RULES),
    *,
    progress: Callable[[int], None] | None = None,
) -> RangesByImages:
    """Return the range of every tensor that some dialect quantises, by every method, from one pass over the images.

    The last entry is of all images; those before, of the first eighth, quarter and half, tell whether the ranges have
    settled. `model` is the float graph that takes uint8; it never changes.
    """
    names = find_calibrated_tensors(model)
    observed = open_reference(model_bytes(with_outputs(model, names)))
    try:
        return collect_ranges(
            lambda batch: _only(names, observed.infer({INPUT: batch})),
            [images.prepared],
            methods,
            after=halvings(len(images.prepared)),
            progress=progress,
        )
    finally:
        observed.close()


def quantized(
    model: ir.Model,
    images: CalibrationImages,
    method: CalibrationMethod,
    *,
    measured: RangesByImages | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Quantized:
    """Calibrate the float graph by `method` and insert Q/DQ pairs by the base rule.

    `measured` is what `measured_ranges` gave for this model and these images: who tries several methods measures once.
    `model` is the float graph that takes uint8; it never changes. `progress` hears the images done, and of how many.
    """
    is_auto = method is CalibrationMethod.AUTO
    probed = images.prepared[:PROBED_IMAGES] if is_auto else images.prepared[:0]
    counted_on = len(images.prepared) if measured is None else 0
    total = counted_on + len(probed)
    if measured is None:
        methods = tuple(RANGE_RULES) if is_auto else (method,)
        measured = measured_ranges(model, images, methods, progress=lambda done: progress(done, total))
    final = measured[max(measured)]
    if is_auto:
        chosen = chosen_methods(model, probed, final, progress=lambda done: progress(counted_on + done, total))
    else:
        chosen = dict.fromkeys(final[method], method)
    by_images = {count: {name: found[how][name] for name, how in chosen.items()} for count, found in measured.items()}
    table = CalibrationTable(
        method=method,
        ranges=by_images[max(by_images)],
        model_sha256=sha256_of(model_bytes(model)),
        images=len(images.prepared),
        data_sha256=_data_digest(images),
        stability=range_changes(by_images),
        chosen=dict(Counter(how.value for how in chosen.values())) if is_auto else {},
    )
    return _with_ranges(model, images, table)


def requantized(model: ir.Model, images: CalibrationImages, table: CalibrationTable) -> Quantized:
    """Insert Q/DQ pairs with the ranges of an earlier calibration of this very graph on these very images.

    Raises: CalibrationError if the table belongs to another graph or other images.
    """
    table.require(model_sha256=sha256_of(model_bytes(model)), data_sha256=_data_digest(images))
    return _with_ranges(model, images, table)


def _with_ranges(model: ir.Model, images: CalibrationImages, table: CalibrationTable) -> Quantized:
    artifact = int8_graph(model, table.ranges)
    record = CalibrationRecord(
        method=table.method.value,
        dataset=images.dataset,
        images=len(images.prepared),
        image_sha256=images.digests,
        stability=table.stability,
        chosen=table.chosen,
    )
    return Quantized(model=artifact, table=table, record=record)


def int8_graph(model: ir.Model, ranges: Mapping[str, float], keep_float: Collection[str] = ()) -> ir.Model:
    """Return the INT8 artifact of a float graph by calibrated ranges; the nodes of these names stay in float."""
    artifact = model.clone()
    insert_qdq(artifact, ranges, keep_float=keep_float)
    return artifact


def _data_digest(images: CalibrationImages) -> str:
    """Return the digest of the images as the network gets them: another resize or crop gives another."""
    return data_digest(image_digest(image) for image in images.prepared)


def _only(names: list[str], outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: outputs[name] for name in names}
