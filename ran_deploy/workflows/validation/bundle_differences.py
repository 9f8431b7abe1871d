"""What two bundles differ in, aspect by aspect, in words."""

from __future__ import annotations

from collections.abc import Callable

from ran_deploy.bundle import Bundle, sha256_of
from ran_deploy.counts import counted
from ran_deploy.manifest import Manifest
from ran_deploy.preprocessing import describe
from ran_deploy.report.schema import BundleDifference
from ran_deploy.workflows.evaluation.evaluators import MODEL_FILE

__all__ = ["bundle_differences"]

MOST_NAMES = 5  # of regions, labels and dialects


def bundle_differences(reference: Bundle, judged: Bundle) -> tuple[BundleDifference, ...]:
    """Return every aspect in which the two differ, the more important first; none for the same bundle twice."""
    found = []
    for what, describe_aspect in ASPECTS.items():
        before, after = describe_aspect(reference.manifest), describe_aspect(judged.manifest)
        if before != after:
            found.append(BundleDifference(what=what, reference=before, bundle=after))
    return (*found, *_tools(reference.manifest, judged.manifest))


def _calibration(manifest: Manifest) -> str:
    record = manifest.calibration
    if record is None:
        return "none"
    # Other images of a data set with the same name would look alike without it.
    digest = sha256_of("".join(sorted(record.image_sha256)).encode())[:8]
    return f"{record.method} on {counted(record.images, 'image')} of {record.dataset} (digest {digest})"


def _kept_in_float(manifest: Manifest) -> str:
    return _some(list(manifest.kept_in_float)) if manifest.kept_in_float else "nothing"


def _labels(manifest: Manifest) -> str:
    names = f": {_some(list(manifest.labels))}" if manifest.labels else ", without names"
    return manifest.task.counted(manifest.output_size) + names


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {more:,} more" if (more := len(names) - MOST_NAMES) > 0 else shown


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


def _batch(manifest: Manifest) -> str:
    return f"{manifest.batch.minimum} to {manifest.batch.maximum}, best at {manifest.batch.optimum}"


ASPECTS: dict[str, Callable[[Manifest], str]] = {
    "architecture": lambda m: m.architecture,
    "precision": lambda m: m.precision.value,
    "checkpoint": lambda m: f"{m.checkpoint.file_name}, sha256 {m.checkpoint.sha256[:12]}",
    "calibration": _calibration,
    "kept in float": _kept_in_float,
    "outputs": _labels,
    "pre-processing": lambda m: describe(m.preprocessing),
    "size of the graph": lambda m: _mebibytes(m.files[MODEL_FILE].size_bytes),
    "size of the bundle": lambda m: _mebibytes(sum(record.size_bytes for record in m.files.values())),
    "engines": lambda m: _some(list(m.dialects)),
    "batch sizes": _batch,
    "attention": lambda m: counted(len(m.attention), "mask"),
    "exported": lambda m: m.created[:19].replace("T", " "),
}


def _tools(reference: Manifest, judged: Manifest) -> list[BundleDifference]:
    names = sorted(reference.tools.keys() | judged.tools.keys())
    pairs = ((name, reference.tools.get(name, "none"), judged.tools.get(name, "none")) for name in names)
    return [
        BundleDifference(what=name, reference=before, bundle=after) for name, before, after in pairs if before != after
    ]
