"""The accuracy that an INT8 graph loses against the float graph on validation images, one dialect at a time.

Images come in blocks, each as large as all before: a graph that is hopeless is found out early, and each block that is
measured is in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from ran_deploy.bundle import sha256_of
from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.dialects import lower
from ran_deploy.converters.graph import model_bytes
from ran_deploy.counts import counted
from ran_deploy.datasets import select_indices
from ran_deploy.errors import BackendUnavailableError, BudgetError
from ran_deploy.journal import Journal
from ran_deploy.manifest import Task
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner, unavailable_reason
from ran_deploy.runtime.backends.ort import open_emulation
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.statistics import PairedOutcome
from ran_deploy.workflows.evaluation.evaluators import Infer, fp32_runner
from ran_deploy.workflows.evaluation.images import BATCH, ValidationImages
from ran_deploy.workflows.evaluation.tasks import TASKS

__all__ = ["ENGINES", "DropMeter", "balanced", "blocks_of"]

# The engine that runs a dialect on any CPU, the fastest first; the others are emulated, exactly as written.
ENGINES = {"openvino": "openvino", "onnxruntime": "onnxruntime"}
FIRST_BLOCK = 4 * BATCH

Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class DropMeter:
    """What measures drops: the images, what the float graph gives for each, and where measurements are kept.

    `expected` are outputs (N, size), `outcome` is that of the float graph against itself: it has the measure and unit.
    """

    images: ValidationImages
    task: Task
    expected: np.ndarray
    outcome: PairedOutcome
    journal: Journal
    progress: Progress

    @classmethod
    def of(
        cls, reference: ir.Model, images: ValidationImages, task: Task, journal: Journal, progress: Progress
    ) -> DropMeter:
        """Run the float graph on all images. Raises: BudgetError where it hardly does better than guessing."""
        images = balanced(images, task)
        runner, rows = fp32_runner(model_bytes(reference)), list[np.ndarray]()

        def run(batch: np.ndarray) -> np.ndarray:
            rows.append(runner.infer({INPUT: batch})[OUTPUT])
            return rows[-1]

        try:
            total = len(images)
            compared = TASKS[task].compare(images, run, lambda batch: rows[-1], lambda done: progress(done, total))
        finally:
            runner.close()
        if compared.reference_guesses:
            raise BudgetError(
                f"Even in float the network hardly does better than guessing on {counted(total, 'image')} of "
                f"{images.dataset.name}: no drop shows anything there. Check labels and pre-processing, or give other "
                "--validation-data."
            )
        assert compared.outcome is not None
        expected = np.concatenate(rows)
        return cls(
            images=images,
            task=task,
            expected=expected,
            outcome=compared.outcome,
            journal=journal,
            progress=progress,
        )

    def measure(self, artifact: ir.Model, dialect: str, hopeless: Callable[[PairedOutcome], bool]) -> PairedOutcome:
        """Return the drop of the dialect of an INT8 artifact; it ends after the block that makes it `hopeless`."""
        graph = model_bytes(lower(artifact, dialect, Precision.INT8))
        key, total = sha256_of(graph), replace(self.outcome, images=0, lost=0, gained=0)
        with _opened_when_used(graph, dialect) as engine:
            for block in blocks_of(len(self.images), self.task):
                name = f"drop/{dialect}/{key}/{block.start}-{block.stop}"
                found = self.journal.recall(name, partial(self._block, block, engine))
                images, lost, gained = map(int, found)
                total = replace(
                    total, images=total.images + images, lost=total.lost + lost, gained=total.gained + gained
                )
                if hopeless(total):
                    break
        return total

    def _block(self, block: range, engine: Infer) -> tuple[int, int, int]:
        """Return the images or pairs of a block, how many only the float graph got right, and how many only INT8."""
        images = self.images
        if len(block) < len(images):
            part = slice(block.start, block.stop)
            images = replace(images, indices=images.indices[part], digests=images.digests[part])
        rows = iter(range(block.start, block.stop, BATCH))

        def expected(batch: np.ndarray) -> np.ndarray:
            start = next(rows)
            return self.expected[start : start + len(batch)]

        total = len(self.images)
        compared = TASKS[self.task].compare(
            images, expected, engine, lambda done: self.progress(block.start + done, total)
        )
        assert compared.outcome is not None
        return compared.outcome.images, compared.outcome.lost, compared.outcome.gained


def balanced(images: ValidationImages, task: Task) -> ValidationImages:
    """Return the images in an order whose beginnings are balanced over classes; pairs number them as they are."""
    if task is not Task.CLASSIFICATION:
        return images
    place = {index: position for position, index in enumerate(images.indices)}
    order = [index for index in select_indices(images.dataset, len(images.dataset)) if index in place]
    return replace(images, indices=tuple(order), digests=tuple(images.digests[place[index]] for index in order))


def blocks_of(images: int, task: Task) -> Sequence[range]:
    """Return the blocks of images, all multiples of BATCH but for the end; pairs are judged all at once."""
    if task is not Task.CLASSIFICATION:
        return [range(images)]
    blocks, start, stop = [], 0, FIRST_BLOCK
    while start < images:
        blocks.append(range(start, min(stop, images)))
        start, stop = stop, 2 * stop
    return blocks


@contextmanager
def _opened_when_used(graph: bytes, dialect: str) -> Iterator[Infer]:
    """Yield what gives the outputs of a dialect's graph; it is opened when it is first used."""
    runner: Runner | None = None

    def infer(images: np.ndarray) -> np.ndarray:
        nonlocal runner
        if runner is None:
            runner = _open(graph, dialect)
        return runner.infer({INPUT: images})[OUTPUT]

    try:
        yield infer
    finally:
        if runner is not None:
            runner.close()


def _open(graph: bytes, dialect: str) -> Runner:
    """Return the engine of a dialect on this CPU, or its graph emulated where there is none."""
    backend = ENGINES.get(dialect)
    if backend is None or unavailable_reason(backend):
        return open_emulation(graph, dialect, Precision.INT8)
    try:
        return open_runner(backend, open_builder(backend).build(graph, BuildOptions(precision=Precision.INT8)))
    except BackendUnavailableError:
        return open_emulation(graph, dialect, Precision.INT8)
