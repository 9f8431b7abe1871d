"""Running a bundle's engines, or graphs in their place, through a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle
from ran_deploy.verification.embeddings import Compared
from ran_deploy.workflows.engines.loading import load_engine, prove_engine, runnable_backends
from ran_deploy.workflows.evaluation.evaluators import Infer, emulated_dialect
from ran_deploy.workflows.validation.attention import AttentionReference
from ran_deploy.workflows.validation.report import Measured

__all__ = ["Compare", "run_engines"]

Compare = Callable[[str, Infer], Compared]  # backend and engine -> what comparing it gives


def run_engines(
    bundle: Bundle,
    backends: Sequence[str],
    compare: Compare | None,
    *,
    attention: AttentionReference | None = None,
    images: str,
    estimates: bool,
    cache_dir: Path | None,
    report: Callable[[str], None],
) -> list[Measured]:
    """Run each backend through `compare`, and with `estimates` graphs of those that cannot run; `images` says on what.

    Raises: what loading an engine raises; SelfTestError.
    """
    measured = []
    for backend in backends:
        report(f"{backend}: golden self-test" + (f", then {images}" if compare else ""))
        measured.append(_measured(bundle, backend, compare, attention, cache_dir))
    if compare is not None and estimates:
        for backend in _without_engine(bundle, cache_dir):
            report(f"{backend}: cannot run here, its graph is emulated on {images}")
            measured.append(_estimated(bundle, backend, compare, attention))
    return measured


def _measured(
    bundle: Bundle,
    backend: str,
    compare: Compare | None,
    attention: AttentionReference | None,
    cache_dir: Path | None,
) -> Measured:
    """Run an engine: the golden inputs and, where it is to be compared, what `compare` gives it."""
    loaded = load_engine(bundle, backend, cache_dir=cache_dir)
    with loaded.predictor as predictor:
        return Measured(
            backend=backend,
            half_pixel=predictor.half_pixel,
            self_test=loaded.self_test or prove_engine(bundle, backend, predictor),
            comparison=compare(backend, predictor.infer_batch) if compare else None,
            attention=attention.compare_engine(predictor) if attention else None,
        )


def _estimated(bundle: Bundle, backend: str, compare: Compare, attention: AttentionReference | None) -> Measured:
    """Evaluate the graph of a backend that cannot run here."""
    dialect = BACKENDS[backend]
    with emulated_dialect(bundle, dialect) as infer:
        comparison = compare(backend, infer)
    masks = attention.compare_emulated(bundle, dialect) if attention else None
    return Measured(backend=backend, self_test=None, comparison=comparison, attention=masks)


def _without_engine(bundle: Bundle, cache_dir: Path | None) -> list[str]:
    """Return one backend for each dialect of which none can run here."""
    reasons = runnable_backends(bundle, cache_dir)
    running = {BACKENDS[backend] for backend, reason in reasons.items() if reason is None}
    missing = {BACKENDS[backend]: backend for backend in reasons if BACKENDS[backend] not in running}
    return list(missing.values())
