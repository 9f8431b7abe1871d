"""What a report says of an embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ran_deploy.counts import counted
from ran_deploy.report.schema import EmbeddingFigures, EngineReport, PairFigures, TurnedImage
from ran_deploy.verification.embeddings import EmbeddingComparison
from ran_deploy.verification.same_different import SameDifferent

__all__ = ["guessed_pairs", "with_vectors", "without_pairs"]


def with_vectors(report: EngineReport, comparison: EmbeddingComparison, files: Mapping[int, str]) -> EngineReport:
    """Return the report with an embedding's figures; `files` name images by index."""
    turned = tuple(
        TurnedImage(index=t.index, file=files.get(t.index), cosine=t.cosine, relative_l2=t.relative_l2)
        for t in comparison.turned
    )
    pairs = _pair_figures(comparison.same_different) if comparison.same_different else None
    figures = EmbeddingFigures(vectors=comparison.vectors, cosine=comparison.cosine, turned=turned, pairs=pairs)
    return replace(report, embedding=figures)


def without_pairs(comparison: EmbeddingComparison) -> str:
    """Return the verdict where nothing says which images show the same."""
    cosine = comparison.cosine
    return (
        f"Vectors of {counted(comparison.images, 'image')} keep a cosine of {cosine.mean:.5f} to the reference's on "
        f"average, {cosine.lowest:.5f} at least; without classes or --pairs there is no verification accuracy."
    )


def guessed_pairs(comparison: EmbeddingComparison) -> str:
    """Return the warning where even the reference cannot tell same from different."""
    found = comparison.same_different
    assert found is not None
    return (
        f"The reference itself is right on {found.accuracy_reference:.2f} % of {counted(found.pairs, 'pair')}, where "
        f"always giving the more frequent answer gets {found.guessing:.2f} %: the pairs or the pre-processing do not "
        "fit the network, or too few pairs are of the other kind, and the drop means nothing. Check what is called the "
        "same, how objects are cut out, the recipe the bundle was exported with (--mean, --std, --resize, "
        "--channel-order) and --reference, or balance the pairs."
    )


def _pair_figures(found: SameDifferent) -> PairFigures:
    return PairFigures(
        pairs=found.pairs,
        same=found.same,
        threshold=found.threshold,
        accuracy_reference=found.accuracy_reference,
        accuracy_engine=found.accuracy_engine,
        tar=found.tar,
    )
