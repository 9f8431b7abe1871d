"""What a bundle's task changes in its validation: which images are read, and how outputs are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ran_deploy.counts import counted
from ran_deploy.datasets import Dataset, match_labels
from ran_deploy.datasets.pairs import ImagePairs, pairs_of_classes, read_pairs
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Manifest, Task
from ran_deploy.verification.comparison import Comparison, Infer, compare
from ran_deploy.verification.embeddings import Compared, EmbeddingComparison, compare_embeddings
from ran_deploy.verification.same_different import FOLDS, check_pairs
from ran_deploy.workflows.evaluation.images import ValidationImages, read_images, used_images

__all__ = ["TASKS", "ImageRequest", "TaskValidation"]


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Which images of `dataset` are asked for. `judged`: there is a budget, so something must be known of them.

    `report` gets a line for each stage, `progress` the images read, of how many. `other` is the manifest of another
    bundle that is to run on the same images.
    """

    dataset: Dataset
    manifest: Manifest
    limit: int | None
    pairs: Path | None
    judged: bool
    report: Callable[[str], None]
    progress: Callable[[int, int], None]
    other: Manifest | None = None


@dataclass(frozen=True, kw_only=True)
class TaskValidation:
    """`read` what is asked for, and `compare` reference and engine on it; numbers of images are the data set's."""

    read: Callable[[ImageRequest], ValidationImages]
    compare: Callable[[ValidationImages, Infer, Infer, Callable[[int], None]], Compared]


def _labelled_images(request: ImageRequest) -> ValidationImages:
    dataset, manifest = request.dataset, request.manifest
    if request.pairs is not None:
        raise ConfigError(f"--pairs compares embeddings, but {manifest.name} is a classifier. Leave it out.")
    if request.judged and dataset.label(0) is None:
        raise ConfigError(f"--max-drop is judged on labelled images; {dataset.name} has no labels.")
    matched, note = match_labels(dataset, manifest.labels, manifest.output_size)
    if note:
        request.report(f"labels: {note}")
    return replace(_read(replace(request, dataset=matched)), labels=note)


def _compare_classes(
    images: ValidationImages, reference: Infer, engine: Infer, progress: Callable[[int], None]
) -> Comparison:
    return compare(reference, engine, images.batches(), progress=progress).renumbered(images.indices)


def _paired_images(request: ImageRequest) -> ValidationImages:
    """Read the images of the pairs that are given, else all; then pairs are made of their classes.

    Raises: DatasetError for pairs that show nothing, before any image is read and again without unreadable ones.
    """
    dataset = request.dataset
    given = read_pairs(request.pairs, dataset) if request.pairs is not None else None
    if given is not None:
        check_pairs(given.same)
    images = _read(request, given)
    pairs = given if given is not None else _made_pairs(images)
    if pairs is None and request.judged:
        raise ConfigError(
            f"--max-drop of an embedding is judged on pairs of images; {dataset.name} has no classes of which {FOLDS} "
            "could be made. Give --pairs FILE, or a folder for each class."
        )
    if pairs is None:
        return images
    usable = pairs.renumbered({index: place for place, index in enumerate(images.indices)})
    note = f"{int(usable.same.sum()):,} of the same and {int((~usable.same).sum()):,} of different, {pairs.origin}"
    if lost := len(pairs) - len(usable):
        note += f"; {lost:,} more have an image that cannot be read"
    request.report(f"pairs: {note}")
    check_pairs(usable.same)
    return replace(images, pairs=usable, pairs_note=note)


def _made_pairs(images: ValidationImages) -> ImagePairs | None:
    if not images.labelled:
        return None
    labels = {index: label for index in images.indices if (label := images.dataset.label(index)) is not None}
    pairs = pairs_of_classes(labels)
    return pairs if len(pairs) >= FOLDS else None


def _compare_vectors(
    images: ValidationImages, reference: Infer, engine: Infer, progress: Callable[[int], None]
) -> EmbeddingComparison:
    found = compare_embeddings(reference, engine, images.batches(), pairs=images.pairs, progress=progress)
    return found.renumbered(images.indices)


def _read(request: ImageRequest, pairs: ImagePairs | None = None) -> ValidationImages:
    dataset, other = request.dataset, request.other
    wanted = len(pairs.images) if pairs is not None else min(request.limit or len(dataset), len(dataset))
    request.report(f"reading {counted(wanted, 'image')} of {dataset.name}")
    images = read_images(
        dataset,
        request.manifest.preprocessing,
        limit=request.limit,
        indices=pairs.images if pairs is not None else None,
        used=used_images(request.manifest, *([other] if other else [])),
        also=other.preprocessing if other else None,
        progress=request.progress,
    )
    if images.unreadable:
        request.report(f"left out: {counted(len(images.unreadable), 'image')} that cannot be read")
    return images


TASKS = {
    Task.CLASSIFICATION: TaskValidation(read=_labelled_images, compare=_compare_classes),
    Task.EMBEDDING: TaskValidation(read=_paired_images, compare=_compare_vectors),
}
