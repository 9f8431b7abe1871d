"""What a bundle is made of: the checkpoint, its recipe and labels, and the images to calibrate with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ran_deploy.calibration import CalibrationTable
from ran_deploy.counts import counted
from ran_deploy.datasets import Dataset, Split, open_dataset
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Task
from ran_deploy.models import LoadedCheckpoint, load_checkpoint
from ran_deploy.preprocessing import Preprocessing, describe
from ran_deploy.workflows.exporting.calibration_table import read_table
from ran_deploy.workflows.exporting.config import ExportConfig, Report
from ran_deploy.workflows.exporting.likeness import likeness_warning
from ran_deploy.workflows.exporting.quantization import CalibrationImages, calibration_images
from ran_deploy.workflows.exporting.recipe import resolve_recipe
from ran_deploy.workflows.exporting.selection_warnings import selection_warnings

__all__ = ["Source", "read_source"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the graphs are made of."""

    checkpoint: LoadedCheckpoint
    recipe: Preprocessing
    recipe_source: str
    labels: tuple[str, ...] | None
    images: CalibrationImages | None
    table: CalibrationTable | None
    notes: tuple[str, ...]


def read_source(config: ExportConfig, report: Report) -> Source:
    table = read_table(config.calibration_table) if config.calibration_table is not None else None
    checkpoint = load_checkpoint(
        config.checkpoint, architecture=config.architecture, model=config.model, input_size=config.input_size
    )
    if config.task is not None:
        checkpoint = replace(checkpoint, task=config.task)
    report(
        f"checkpoint: {checkpoint.architecture}, {checkpoint.parameters / 1e6:.2f} M parameters, "
        f"{checkpoint.task.counted(checkpoint.num_classes)} "
        f"({'; '.join([f'{checkpoint.layout} layout', *checkpoint.notes])})"
    )
    dataset = open_dataset(config.calibration_data, Split.TRAIN) if config.calibration_data else None
    labels = _labels(config.labels, checkpoint, dataset)
    recipe, recipe_source = resolve_recipe(
        config.recipe,
        input_size=checkpoint.input_size,
        stored=checkpoint.preprocessing,
        layout=checkpoint.customary,
        dataset=dataset.defaults if dataset else None,
        dataset_name=dataset.name if dataset else "",
    )
    report(f"pre-processing: {describe(recipe)} ({recipe_source})")
    images = calibration_images(dataset, config.calibration_images, recipe) if dataset else None
    return Source(
        checkpoint=checkpoint,
        recipe=recipe,
        recipe_source=recipe_source,
        labels=labels,
        images=images,
        table=table,
        notes=_notes(checkpoint, recipe, images, report) if images is not None else (),
    )


def _notes(
    checkpoint: LoadedCheckpoint, recipe: Preprocessing, images: CalibrationImages, report: Report
) -> tuple[str, ...]:
    """Say what a user should know of the calibration images, and return it for the manifest."""
    if images.left_out:
        report(images.left_out)
    classes = checkpoint.num_classes if checkpoint.task is Task.CLASSIFICATION else None
    unlike = likeness_warning(checkpoint.module, images.prepared, recipe)
    warnings = [*selection_warnings(images.digests, images.labels, classes), *([unlike] if unlike else [])]
    for warning in warnings:
        logger.warning("%s", warning)
    return (*([images.left_out] if images.left_out else []), *warnings)


def _labels(
    asked: tuple[str, ...] | None, checkpoint: LoadedCheckpoint, dataset: Dataset | None
) -> tuple[str, ...] | None:
    """Return the class names: those asked for, the checkpoint's, or the data set's where their number fits.

    An embedding has none: its features mean nothing one by one, and it compares classes that it was never shown.
    """
    if checkpoint.task is Task.EMBEDDING:
        if asked is not None:
            raise ConfigError(
                f"--labels names classes, but {checkpoint.architecture} is an embedding of {checkpoint.num_classes} "
                "features. Leave --labels out, or add --task classification if its outputs are logits."
            )
        return None
    if asked is not None and len(asked) != checkpoint.num_classes:
        raise ConfigError(
            f"--labels names {counted(len(asked), 'class', 'classes')}; the checkpoint has {checkpoint.num_classes}."
        )
    known = asked or checkpoint.labels
    if known is None and dataset is not None and dataset.classes and len(dataset.classes) == checkpoint.num_classes:
        return dataset.classes
    return known
