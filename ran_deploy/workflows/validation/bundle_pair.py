"""Two bundles side by side: whether they can be compared, and the outputs of one as the other would number them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ran_deploy.bundle import Bundle
from ran_deploy.datasets.class_names import numbers_by_name
from ran_deploy.errors import BackendUnavailableError, ConfigError
from ran_deploy.manifest import Manifest, Task
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.workflows.engines.loading import ALL, AUTO, expand_backends, runnable_backends
from ran_deploy.workflows.evaluation.evaluators import Infer
from ran_deploy.workflows.evaluation.images import ValidationImages

__all__ = ["common_backends", "on_own_images", "output_order", "pair_warnings", "prepares_alike"]


def output_order(reference: Bundle, judged: Bundle) -> np.ndarray:
    """Return the column of the reference's outputs that holds each output of the judged bundle: int (size,).

    Classes belong together by name, where both bundles have names; features by place.
    Raises: ConfigError if one is a classifier and the other is not, or if they have other classes.
    """
    a, b = reference.manifest, judged.manifest
    if a.task is not b.task or a.output_size != b.output_size:
        raise ConfigError(f"{_what(reference)}, {_what(judged)}. Only bundles with the same outputs can be compared.")
    if not a.labels or not b.labels or a.labels == b.labels:
        return np.arange(b.output_size)
    places = numbers_by_name(b.labels, a.labels)
    missing = [name for name in b.labels if name not in places]
    if missing or len(set(places.values())) < len(b.labels):
        odd = missing[0] if missing else b.labels[0]
        raise ConfigError(
            f"{judged.path} has the class {odd!r}, which is none of those of {reference.path}; only bundles with the "
            "same classes can be compared. Export one of them again with the --labels of the other."
        )
    return np.array([places[name] for name in b.labels])


def pair_warnings(reference: Manifest, judged: Manifest) -> tuple[str, ...]:
    """Return what two manifests that can be compared leave to be doubted about a comparison."""
    if judged.task is Task.EMBEDDING:
        if reference.checkpoint.sha256 == judged.checkpoint.sha256:
            return ()
        return (
            f"The bundles come from different checkpoints, {_checkpoint(reference)} and {_checkpoint(judged)}. Unless "
            "both hold the same weights, a feature of one is no feature of the other: cosine, relative L2 and SQNR "
            "say nothing, nor does a drop at the reference's threshold. Of pairs, TAR at FAR still compares them.",
        )
    unnamed = [manifest.name for manifest in (reference, judged) if not manifest.labels]
    if not unnamed or reference.checkpoint.sha256 == judged.checkpoint.sha256:
        return ()
    return (
        f"Classes are matched by number, as {' and '.join(dict.fromkeys(unnamed))} has no names for them: in another "
        "order, figures mean nothing. Export with --labels to match them by name.",
    )


def _checkpoint(manifest: Manifest) -> str:
    return f"{manifest.checkpoint.file_name} (sha256 {manifest.checkpoint.sha256[:12]})"


def _what(bundle: Bundle) -> str:
    manifest = bundle.manifest
    return f"{bundle.path} has {manifest.task.counted(manifest.output_size)} ({manifest.task.value})"


def common_backends(
    reference: Bundle, judged: Bundle, wanted: Sequence[str], cache_dir: Path | None
) -> tuple[str, ...]:
    """Return the backends meant, of those that can run both bundles here: an engine's own rounding is no difference.

    Raises: BackendUnavailableError if there is none; BundleError for a named one that a bundle was exported without.
    """
    named = [name for name in wanted if name not in (AUTO, ALL)]
    for bundle in (reference, judged):
        expand_backends(bundle, named, cache_dir)
    both = [runnable_backends(bundle, cache_dir) for bundle in (judged, reference)]
    able = [name for name, reason in both[0].items() if reason is None and both[1].get(name, "") is None]
    if len(named) < len(wanted) and not able:
        reasons = ", ".join(f"{b.path}: {' '.join(_runnable(b, cache_dir)) or 'none'}" for b in (reference, judged))
        raise BackendUnavailableError(f"No backend here runs both bundles ({reasons}). Export both with one in common.")
    chosen = {AUTO: able[:1], ALL: able}
    return tuple(dict.fromkeys(name for word in wanted for name in chosen.get(word, [word])))


def _runnable(bundle: Bundle, cache_dir: Path | None) -> list[str]:
    return [name for name, reason in runnable_backends(bundle, cache_dir).items() if reason is None]


def prepares_alike(first: Manifest, second: Manifest) -> bool:
    """Say whether both give their engine the same pixels; mean and standard deviation are inside the graphs."""
    return _outside(first.preprocessing) == _outside(second.preprocessing)


def _outside(recipe: Preprocessing) -> Preprocessing:
    return replace(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def on_own_images(infer: Infer, recipe: Preprocessing, images: Callable[[], ValidationImages]) -> Infer:
    """Return `infer` for images that another recipe prepared: each batch in turn is prepared again with its own.

    `images` gives those that batches were taken of so far, in their order.
    """
    done = 0

    def run(prepared: np.ndarray) -> np.ndarray:
        nonlocal done
        taken = images()
        own = replace(taken, recipe=recipe, indices=taken.indices[done : done + len(prepared)], pairs=None)
        done += len(prepared)
        return np.concatenate([infer(batch) for batch, _ in own.batches()])

    return run
