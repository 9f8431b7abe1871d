"""What engines are compared with: a checkpoint, the bundle's own FP32 graph, or the engines of another bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.report.schema import BundleComparison
from ran_deploy.workflows.engines.loading import load_engine
from ran_deploy.workflows.evaluation.evaluators import Infer, Replayed, open_reference
from ran_deploy.workflows.evaluation.images import ValidationImages
from ran_deploy.workflows.validation.bundle_differences import bundle_differences
from ran_deploy.workflows.validation.bundle_pair import on_own_images, output_order, pair_warnings, prepares_alike
from ran_deploy.workflows.validation.config import ValidateConfig
from ran_deploy.workflows.validation.report import summary_of

__all__ = ["OtherBundle", "Reference", "open_other", "open_references"]


@dataclass(frozen=True)
class Reference:
    """What one engine after another is compared with; `start` gives what computes its outputs, from the first image on.

    That is asked for a backend, as another bundle's engine runs where the engine does.
    """

    name: str
    start: Callable[[str], AbstractContextManager[Infer]]


@dataclass(frozen=True)
class OtherBundle:
    """The bundle that another one is judged by; `order` are its outputs' columns in the order of the judged one's."""

    bundle: Bundle
    order: np.ndarray
    judged: Bundle

    @property
    def comparison(self) -> BundleComparison:
        """Which bundle it is, and what the two differ in."""
        return BundleComparison(
            bundle=summary_of(self.bundle),
            precision=self.bundle.manifest.precision.value,
            differences=bundle_differences(self.bundle, self.judged),
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be read before any figure."""
        return pair_warnings(self.bundle.manifest, self.judged.manifest)

    @contextmanager
    def engine(self, backend: str, cache_dir: Path | None, images: Callable[[], ValidationImages]) -> Iterator[Infer]:
        """Yield its proven engine, which prepares the `images` of each batch with its own recipe where that differs."""
        manifest = self.bundle.manifest
        with load_engine(self.bundle, backend, cache_dir=cache_dir).predictor as predictor:
            infer: Infer = predictor.infer_batch
            if not prepares_alike(manifest, self.judged.manifest):
                infer = on_own_images(infer, manifest.preprocessing, images)
            yield lambda prepared: infer(prepared)[:, self.order]


def open_other(config: ValidateConfig, judged: Bundle) -> OtherBundle | None:
    """Open the bundle of --compare, and check it whole. Raises: BundleError; ConfigError if outputs do not match."""
    if config.compare is None:
        return None
    bundle = open_bundle(config.compare, require_signature=config.require_signature)
    order = output_order(bundle, judged)
    bundle.verify()
    return OtherBundle(bundle, order, judged)


@contextmanager
def open_references(
    config: ValidateConfig, bundle: Bundle, other: OtherBundle | None, images: Callable[[], ValidationImages]
) -> Iterator[Reference]:
    """Yield what the engines of `bundle` are compared with on `images`: those that were taken so far, in their order.

    Outputs of a checkpoint or graph are computed once. Raises: as `evaluators.open_reference`.
    """
    if other is not None:
        name = f"{other.bundle.path} ({other.bundle.manifest.precision.value}), on the same backend"
        yield Reference(name, lambda backend: other.engine(backend, config.cache_dir, images))
        return
    with open_reference(bundle, config.reference, config.model, config.architecture) as (name, infer):
        outputs = Replayed(infer)
        yield Reference(name, lambda backend: nullcontext(outputs.start()))
