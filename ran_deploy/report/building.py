"""From what verification found to a report: judged against the budget, with names in place of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ran_deploy.counts import counted
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import Manifest
from ran_deploy.report.attention import attention_figures
from ran_deploy.report.embedding import guessed_pairs, with_vectors, without_pairs
from ran_deploy.report.from_manifest import budget_summary, calibration_summary
from ran_deploy.report.schema import (
    BundleComparison,
    BundleSummary,
    ChangedImage,
    ClassFlip,
    EngineReport,
    Provenance,
    UnreadableImage,
    ValidationReport,
)
from ran_deploy.verification.attention import AttentionComparison
from ran_deploy.verification.certificate import Certificate
from ran_deploy.verification.comparison import Accuracy, Comparison, Disagreement
from ran_deploy.verification.embeddings import Compared, EmbeddingComparison
from ran_deploy.verification.golden import SelfTestResult
from ran_deploy.verification.statistics import PairedOutcome, Verdict, judge

__all__ = ["engine_report", "validation_report"]

MOST_UNREADABLE = 10  # names and reasons: enough to see the pattern, and a data set may hold a million


def engine_report(
    *,
    backend: str,
    precision: str,
    comparison: Compared | None = None,
    self_test: SelfTestResult | None = None,
    max_drop_pp: float | None = None,
    device: Mapping[str, str] | None = None,
    estimate: bool = False,
    class_names: Sequence[str] | None = None,
    files: Mapping[int, str] | None = None,
    attention: AttentionComparison | None = None,
    certificate: Certificate | None = None,
) -> EngineReport:
    """Judge one engine and gather what is known of it; a `certificate` takes the place of labels.

    `class_names` name the classes where they are known, `files` the images by index.
    Raises: ConfigError for a budget without labels to check it, or if there is nothing to report.
    """
    if comparison is None and self_test is None:
        raise ConfigError(f"Nothing was measured of {backend}: give validation data, or a bundle with golden inputs.")
    verdict = _certified(certificate) if certificate else _verdict(comparison, max_drop_pp)
    proven = self_test is None or self_test.passed
    report = EngineReport(
        backend=backend,
        precision=precision,
        device=device or {},
        estimate=estimate,
        passed=proven and (verdict is None or verdict.passed),
        verdict=_verdict_text(verdict, comparison, self_test),
        images=comparison.images if comparison else 0,
        warning=_warning(comparison),
        images_needed=verdict.images_needed if verdict else None,
        self_test=self_test,
        attention=attention_figures(attention, files or {}) if attention else None,
        certificate=certificate,
    )
    if comparison is None:
        return report
    if comparison.outcome is not None:
        report = _with_outcome(report, comparison.outcome)
    if isinstance(comparison, EmbeddingComparison):
        return with_vectors(report, comparison, files or {})
    return _with_classes(report, comparison, class_names, files or {})


def validation_report(
    engines: Sequence[EngineReport],
    *,
    bundle: BundleSummary,
    provenance: Provenance,
    max_drop_pp: float | None,
    created: str,
    unreadable: Sequence[UnreadableImage] = (),
    warnings: Sequence[str] = (),
    compared: BundleComparison | None = None,
    manifest: Manifest | None = None,
) -> ValidationReport:
    """Join the engines' reports, in their order.

    Images that are `unreadable` change neither `passed` nor a figure, as nothing ran them: the interval is that of
    fewer images, so wider, and the verdict says what it is about. The bundle's `manifest` tells how it was calibrated
    and what stayed in float.
    Raises: ConfigError if there are no engines.
    """
    if not engines:
        raise ConfigError("There is no engine to report on. Choose one with --backend.")
    measured = [engine for engine in engines if not engine.estimate] or list(engines)
    first = measured[0]
    decisive = next((engine for engine in measured if not engine.passed), first)
    return ValidationReport(
        images=first.images,
        unreadable=len(unreadable),
        unreadable_images=tuple(unreadable[:MOST_UNREADABLE]),
        top1_reference=first.top1_reference,
        top1_engine=first.top1_engine,
        drop_pp=first.drop_pp,
        drop_ci95_pp=first.drop_ci95_pp,
        agreement=first.agreement,
        passed=decisive.passed,
        backend=first.backend,
        precision=first.precision,
        estimate=first.estimate,
        verdict=_joint_verdict(decisive, len(engines), len(unreadable)),
        warnings=(*warnings, *dict.fromkeys(engine.warning for engine in engines if engine.warning)),
        max_drop_pp=max_drop_pp,
        bundle=bundle,
        engines=tuple(engines),
        provenance=provenance,
        calibration=calibration_summary(manifest.calibration) if manifest and manifest.calibration else None,
        kept_in_float=manifest.kept_in_float if manifest else {},
        budget=budget_summary(manifest.budget) if manifest and manifest.budget else None,
        created=created,
        compared=compared,
    )


def _joint_verdict(decisive: EngineReport, engines: int, unreadable: int) -> str:
    text = decisive.verdict if engines == 1 else f"{decisive.backend}: {_lower_first(decisive.verdict)}"
    if not unreadable:
        return text
    total = decisive.images + unreadable
    # Words first: behind "a budget of 1." a number would read as its decimals.
    return f"{text} Of {counted(total, 'image')} {unreadable:,} cannot be read; this is about the rest."


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _certified(certificate: Certificate) -> Verdict:
    return Verdict(
        passed=certificate.proven is not False,
        images_needed=certificate.images_needed,
        text=certificate.text,
    )


def _verdict(comparison: Compared | None, max_drop_pp: float | None) -> Verdict | None:
    if max_drop_pp is None:
        return None
    if comparison is None or comparison.outcome is None:
        raise ConfigError("An accuracy budget (--max-drop) needs labelled images: give them with --data.")
    verdict = judge(comparison.outcome, max_drop_pp)
    if not comparison.reference_guesses:
        return verdict
    text = f"The budget of {max_drop_pp:g} cannot be judged: the reference itself does little better than guessing."
    return replace(verdict, passed=False, images_needed=None, text=text)


def _warning(comparison: Compared | None) -> str | None:
    """Return what is to be said where wrong labels or pre-processing would make any engine look as good as another."""
    if comparison is None or not comparison.reference_guesses:
        return None
    return guessed_pairs(comparison) if isinstance(comparison, EmbeddingComparison) else _guessed_classes(comparison)


def _guessed_classes(comparison: Comparison) -> str:
    accuracy = comparison.accuracy
    assert accuracy is not None
    return (
        f"The reference itself is right on {accuracy.top1_reference:.2f} % of {counted(comparison.images, 'image')}, "
        f"where always giving the most frequent label gets {accuracy.guessing:.2f} %: labels or pre-processing do not "
        "fit the network, or too few images have other labels, and the drop means nothing. Check the names and order "
        "of the classes, the recipe the bundle was exported with (--mean, --std, --resize, --channel-order) and "
        "--reference, or balance the images."
    )


def _verdict_text(verdict: Verdict | None, comparison: Compared | None, self_test: SelfTestResult | None) -> str:
    """Return one sentence, about the self-test where that failed: accuracy means little then."""
    if self_test is not None and not self_test.passed:
        return f"The {self_test.summary}."
    if verdict is not None:
        return verdict.text
    if comparison is not None and comparison.outcome is not None:
        outcome = comparison.outcome
        low, high = outcome.drop_ci95_pp
        return (
            f"{outcome.measure} drop is {outcome.drop_pp:+.2f} points (95 % interval {low:+.2f} to {high:+.2f}); "
            f"no budget was set (--max-drop)."
        )
    if isinstance(comparison, EmbeddingComparison):
        return without_pairs(comparison)
    if comparison is not None:
        keep = "keeps its class" if comparison.images == 1 else "keep their class"
        images = counted(comparison.images, "image")
        return f"{comparison.agreement:.2f} % of {images} {keep}; there are no labels."
    return f"The {self_test.summary}." if self_test else ""


def _with_outcome(report: EngineReport, outcome: PairedOutcome) -> EngineReport:
    return replace(
        report,
        measure=outcome.measure,
        drop_pp=outcome.drop_pp,
        drop_ci95_pp=outcome.drop_ci95_pp,
        lost=outcome.lost,
        gained=outcome.gained,
        mcnemar_p=outcome.mcnemar_p,
    )


def _with_classes(
    report: EngineReport, comparison: Comparison, class_names: Sequence[str] | None, files: Mapping[int, str]
) -> EngineReport:
    def name(index: int) -> str:
        return class_names[index] if class_names else str(index)

    report = replace(
        report,
        agreement=comparison.agreement,
        logits=comparison.logits,
        changed_images=comparison.disagreement_count,
        changed=tuple(_changed_image(d, name, files.get(d.index)) for d in comparison.disagreements),
        flips=tuple(
            ClassFlip(reference=name(c.source), engine=name(c.target), images=c.images) for c in comparison.flips
        ),
    )
    return report if comparison.accuracy is None else _with_accuracy(report, comparison.accuracy)


def _changed_image(disagreement: Disagreement, name: Callable[[int], str], file: str | None) -> ChangedImage:
    label = disagreement.label
    return ChangedImage(
        index=disagreement.index,
        file=file,
        label=None if label is None else name(label),
        reference=name(disagreement.reference),
        engine=name(disagreement.engine),
        margin=disagreement.margin,
        reference_confidence=disagreement.reference_confidence,
        engine_confidence=disagreement.engine_confidence,
    )


def _with_accuracy(report: EngineReport, accuracy: Accuracy) -> EngineReport:
    return replace(
        report,
        top1_reference=accuracy.top1_reference,
        top1_engine=accuracy.top1_engine,
        top5_reference=accuracy.top5_reference,
        top5_engine=accuracy.top5_engine,
        top1_reference_ci95=accuracy.top1_reference_ci95,
        top1_engine_ci95=accuracy.top1_engine_ci95,
    )
