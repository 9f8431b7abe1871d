"""Any part of a dialect graph as an engine of its own, against the exact evaluation of that part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ran_deploy.converters.builders import BuildOptions, open_builder
from ran_deploy.converters.extract import extract
from ran_deploy.converters.graph import model_bytes
from ran_deploy.converters.quantize import with_outputs
from ran_deploy.converters.regions import Region, find_regions
from ran_deploy.errors import BuildError, EngineMismatchError, InputError
from ran_deploy.precision import Precision
from ran_deploy.runtime.backends import open_runner
from ran_deploy.runtime.backends.ort import open_emulation
from ran_deploy.runtime.predictor import INPUT
from ran_deploy.runtime.runner import Runner
from ran_deploy.verification.metrics import relative_l2

__all__ = ["EngineCuts", "ExactGraph", "Part", "distance", "run_batches"]

MICRO_BATCH = 8
Arrays = Mapping[str, np.ndarray]


class ExactGraph:
    """A graph with its regions, its tensors evaluated exactly as written for some prepared images.

    `inputs` are uint8 (N, H, W, 3). Raises: BackendUnavailableError where nothing here evaluates `dialect` as written.
    """

    def __init__(self, model: ir.Model, dialect: str, precision: Precision, inputs: np.ndarray) -> None:
        self.model = model
        self.regions: tuple[Region, ...] = find_regions(model.graph)
        self._dialect = dialect
        self._precision = precision
        self._known: dict[str, np.ndarray] = {INPUT: inputs}

    def tensors(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return tensors by name, one row an image; each is evaluated once."""
        names = tuple(names)
        missing = [name for name in dict.fromkeys(names) if name not in self._known]
        if missing:
            found = self.evaluate(with_outputs(self.model, missing), {INPUT: self._known[INPUT]})
            self._known.update({name: found[name] for name in missing})
        return {name: self._known[name] for name in names}

    def evaluate(self, part: ir.Model, feeds: Arrays) -> dict[str, np.ndarray]:
        """Evaluate a part of the graph, or a variant of it, exactly as written."""
        runner = open_emulation(model_bytes(part), self._dialect, self._precision)
        rows = len(next(iter(feeds.values())))
        return run_batches(runner, feeds, [range(i, min(i + MICRO_BATCH, rows)) for i in range(0, rows, MICRO_BATCH)])


@dataclass(frozen=True)
class Part:
    """What an engine is made of: the tensors it puts out, and those it is given in place of the graph's inputs."""

    outputs: tuple[str, ...]
    given: tuple[str, ...] = ()


class EngineCuts:
    """Builds parts of a graph with one backend and runs them at one batch size; rows are repeated to fill a batch.

    `progress` hears the number of engines built so far.
    """

    def __init__(
        self,
        graph: ExactGraph,
        backend: str,
        options: BuildOptions,
        batch: int,
        progress: Callable[[int], None] = lambda built: None,
    ) -> None:
        self.graph = graph
        self.backend = backend
        self.smallest_batch = options.batch.minimum
        self.batch = max(batch, self.smallest_batch)
        self.refusals: dict[Part, str] = {}
        self._options = options
        self._builder = open_builder(backend)
        self._progress = progress
        self._built = 0

    def model(self, part: Part) -> ir.Model:
        """Return a part as a graph of its own."""
        return extract(self.graph.model, part.outputs, given=part.given)

    def feeds(self, model: ir.Model) -> dict[str, np.ndarray]:
        """Return the exact inputs of a part's graph."""
        return self.graph.tensors(value.name or "" for value in model.graph.inputs)

    def run(self, model: ir.Model, feeds: Arrays, batch: int | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Build and run a graph; return which row of `feeds` each row of the outputs belongs to, and the outputs.

        `batch` is another batch size than that of the others. Raises: BuildError, EngineMismatchError, InputError.
        """
        self._built += 1
        self._progress(self._built)
        engine = self._builder.build(model_bytes(model), self._options)
        size, rows = batch or self.batch, len(next(iter(feeds.values())))
        order = np.arange(-(-rows // size) * size) % rows
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return order, run_batches(open_runner(self.backend, engine), feeds, batches)

    def error(self, part: Part) -> float:
        """Return the largest relative L2 distance of the part's outputs from the exact ones.

        Infinite for an output that is not finite; NaN, with a line in `refusals`, where the part cannot be an engine of
        its own.
        """
        model = self.model(part)
        try:
            order, found = self.run(model, self.feeds(model))
        except (BuildError, EngineMismatchError, InputError) as exc:
            self.refusals[part] = str(exc)
            return math.nan
        exact = self.graph.tensors(part.outputs)
        return max(distance(exact[name][order], found[name]) for name in part.outputs)


def distance(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the relative L2 distance of two arrays of one shape; infinite where `found` is not finite."""
    return relative_l2(exact, found) if np.isfinite(found).all() else math.inf


def run_batches(runner: Runner, feeds: Arrays, batches: Iterable[Iterable[int]]) -> dict[str, np.ndarray]:
    """Run the rows that each batch names, and return the outputs of all in order; closes the runner."""
    try:
        outputs = [
            runner.infer({name: np.ascontiguousarray(array[list(rows)]) for name, array in feeds.items()})
            for rows in batches
        ]
    finally:
        runner.close()
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}
