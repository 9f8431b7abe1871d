"""The soft masks that a bundle puts out: the FP32 graph's against each engine's, on some of the images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError, InputError
from ran_deploy.manifest import AttentionRecord
from ran_deploy.overlays import displayed
from ran_deploy.preprocessing import prepare
from ran_deploy.report.attention import ShownAttention
from ran_deploy.runtime.predictor import Predictor
from ran_deploy.verification.attention import AttentionComparison, compare_attention, rows_from_masks
from ran_deploy.workflows.evaluation.evaluators import Infer, Replayed, emulated_dialect, graph_reference
from ran_deploy.workflows.evaluation.images import ValidationImages

__all__ = ["ATTENTION_IMAGES", "AttentionReference", "open_attention", "shown_attention"]

ATTENTION_IMAGES = 256  # masks are run apart from logits: on as many images as tell where attention moves

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


class AttentionReference:
    """The masks that one engine after another is compared with; they are computed once."""

    def __init__(
        self, records: Sequence[AttentionRecord], infer: Infer, images: ValidationImages, progress: Progress
    ) -> None:
        self._records = records
        self._rows = Replayed(infer)
        self._images = images
        self._progress = progress

    def compare_engine(self, predictor: Predictor) -> AttentionComparison:
        """Compare an engine; what is told of single images has their index in the data set."""
        return self._compare(lambda images: rows_from_masks(predictor.infer_outputs(images).attention, self._records))

    def compare_emulated(self, bundle: Bundle, dialect: str) -> AttentionComparison:
        """Compare the graph of a dialect of which no engine can run here."""
        with emulated_dialect(bundle, dialect, _reader(self._records)) as infer:
            return self._compare(infer)

    def _compare(self, engine: Infer) -> AttentionComparison:
        total = len(self._images)
        found = compare_attention(
            self._rows.start(),
            engine,
            self._images.batches(),
            self._records,
            progress=lambda done: self._progress(done, total),
        )
        return found.renumbered(self._images.indices)


@contextmanager
def open_attention(
    bundle: Bundle, images: ValidationImages, report: Report, progress: Progress
) -> Iterator[AttentionReference | None]:
    """Yield the bundle's FP32 masks on at most ATTENTION_IMAGES of the images, None where it has none.

    They are the FP32 graph's also where logits are compared with a checkpoint in PyTorch.
    """
    records = bundle.manifest.attention
    with contextlib.ExitStack() as stack:
        reference = None
        if records:
            some = thinned(images, ATTENTION_IMAGES)
            try:
                infer = stack.enter_context(graph_reference(bundle, _reader(records)))
            except ConfigError:
                report("attention: not compared, as the bundle was exported without its FP32 graph")
            else:
                report(f"attention: the FP32 graph's masks on {counted(len(some), 'image')}")
                reference = AttentionReference(records, infer, some, progress)
        yield reference


def thinned(images: ValidationImages, most: int) -> ValidationImages:
    """Return at most `most` of the images, evenly spaced: folders come class by class."""
    places = np.unique(np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int))
    return replace(images, indices=tuple(images.indices[place] for place in places.tolist()))


def shown_attention(
    images: ValidationImages, compared: Mapping[str, AttentionComparison]
) -> dict[str, tuple[ShownAttention, ...]]:
    """Return for each backend what the report draws, without images that were lost meanwhile."""
    shown: dict[str, tuple[ShownAttention, ...]] = {}
    for backend, comparison in compared.items():
        pictures = []
        for index, masks in comparison.masks.items():
            with contextlib.suppress(InputError):  # the figures are done: a picture less must not lose them
                image = displayed(prepare(images.dataset.image(index), images.recipe), images.recipe)
                pictures.append(
                    ShownAttention(index=index, image=image, reference=masks.reference, engine=masks.engine)
                )
        shown[backend] = tuple(pictures)
    return shown


def _reader(records: Sequence[AttentionRecord]) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    return lambda outputs: rows_from_masks({r.name: outputs[r.output] for r in records}, records)
