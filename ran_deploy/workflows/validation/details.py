"""A closer look at the engines that were validated: where accuracy is lost, how fast and how large they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ran_deploy.backends import dialect_of
from ran_deploy.bundle import Bundle
from ran_deploy.counts import counted
from ran_deploy.errors import RanDeployError
from ran_deploy.precision import Precision
from ran_deploy.verification.layer_errors import LayerErrors
from ran_deploy.workflows.engines.golden import read_golden
from ran_deploy.workflows.evaluation.evaluators import REFERENCE_FILE
from ran_deploy.workflows.validation.attention import thinned
from ran_deploy.workflows.validation.config import Validation
from ran_deploy.workflows.validation.speed import engine_sizes, engine_speeds

__all__ = ["LAYER_IMAGES", "with_details"]

LAYER_IMAGES = 32  # the SQNR of all values of a layer hardly moves with more

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


def with_details(
    validation: Validation, bundle: Bundle, cache_dir: Path | None, report: Report, progress: Progress
) -> Validation:
    """Return the validation with layers, speeds and sizes in its report; `report` gets a line for each stage.

    Layers are those of the first engine's graph, on validation images or else on golden inputs.
    """
    backends = [engine.backend for engine in validation.report.engines if not engine.estimate]
    images, source = _images(validation, bundle)
    layers, missing = _layers(bundle, dialect_of(backends[0]), images, source, report, progress)
    report(f"timing {', '.join(backends)}: a short look, one after the other in turn")
    try:
        speeds = engine_speeds(bundle, backends, images, cache_dir=cache_dir)
    except RanDeployError as exc:  # what was validated is worth more than how fast it is
        report(f"not timed: {exc}")
        speeds = ()
    return replace(
        validation,
        report=replace(
            validation.report,
            layers=layers,
            layers_missing=missing,
            speeds=speeds,
            sizes=engine_sizes(bundle, backends, cache_dir),
        ),
    )


def _images(validation: Validation, bundle: Bundle) -> tuple[np.ndarray, str]:
    """Return a few prepared images, and what they are."""
    if validation.data is None:
        return read_golden(bundle).inputs[:LAYER_IMAGES], "the golden inputs"
    some = thinned(validation.data, LAYER_IMAGES)
    return np.concatenate([batch for batch, _ in some.batches()]), some.dataset.name


def _layers(
    bundle: Bundle, dialect: str, images: np.ndarray, source: str, report: Report, progress: Progress
) -> tuple[LayerErrors | None, str | None]:
    """Return the error of each layer, or None and why there are none."""
    if bundle.manifest.precision is Precision.FP32:
        return None, None
    if REFERENCE_FILE not in bundle:
        return None, "The bundle was exported without its FP32 graph, with which layers are compared."
    try:
        from ran_deploy.workflows.validation.layer_errors import layer_errors
    except ImportError as exc:
        return None, (
            f"The error of each layer needs onnx and onnx-ir ({exc}). Install them: pip install 'ran-deploy[export]'."
        )
    report(f"layers: the {dialect} graph against the FP32 graph on {counted(len(images), 'image')}")
    try:
        found = layer_errors(bundle, dialect, images, source, progress)
    except RanDeployError as exc:
        return None, str(exc)
    return found, None if found else f"No layer of the {dialect} graph has a namesake in the FP32 graph."
