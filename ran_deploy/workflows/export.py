"""From a checkpoint to a bundle."""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ran_deploy.backends import BACKENDS
from ran_deploy.bundle import Bundle, open_bundle
from ran_deploy.bundle_writing import check_output, refuse_inside_bundle, write_bundle
from ran_deploy.calibration import table_to_json
from ran_deploy.converters.attention import add_attention_outputs
from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.datasets import Split, open_dataset
from ran_deploy.engine.cache import default_cache_dir
from ran_deploy.manifest import CheckpointRecord, DialectRecord, GoldenRecord, Manifest
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing, prepare
from ran_deploy.signature import read_signer
from ran_deploy.verification.attention import rows_from_masks
from ran_deploy.workflows.engines.golden import GOLDEN_FILE, GOLDEN_INPUTS, Golden, synthetic_inputs
from ran_deploy.workflows.evaluation.evaluators import MODEL_FILE, REFERENCE_FILE
from ran_deploy.workflows.evaluation.reference import reference_graph, require_meaning, require_parity, torch_logits
from ran_deploy.workflows.exporting.artifact import budget_of, equalized_reference, typed_artifact
from ran_deploy.workflows.exporting.calibration_table import CALIBRATION_FILE
from ran_deploy.workflows.exporting.config import ExportConfig, Progress, Report
from ran_deploy.workflows.exporting.engines import ExportedEngine, export_engines, keep_engines
from ran_deploy.workflows.exporting.lowering import lower_dialect
from ran_deploy.workflows.exporting.quantization import CalibrationImages
from ran_deploy.workflows.exporting.source import Source, read_source
from ran_deploy.workflows.exporting.versions import tool_versions

__all__ = ["ExportConfig", "ExportResult", "export_bundle"]

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The bundle as written, and each backend's engine or the reason why there is none."""

    bundle: Bundle
    engines: tuple[ExportedEngine, ...]


def export_bundle(
    config: ExportConfig, report: Report = logger.info, progress: Progress = lambda done, total: None
) -> ExportResult:
    """Export a checkpoint into a bundle; nothing stands at `config.output` until all of it does.

    `report` gets a line for each stage, `progress` the images done in it.
    Raises: a RanDeployError for whatever the user can cause.
    """
    signer = read_signer(config.sign) if config.sign is not None else None
    check_output(config.output, overwrite=config.overwrite)
    cache_dir = config.cache_dir or default_cache_dir()
    refuse_inside_bundle(cache_dir / "cache")
    source = read_source(config, report)
    manifest, files, golden = _graphs(config, source, report, progress)
    backends = config.backends or tuple(BACKENDS)
    report(f"building engines: {', '.join(backends)}")
    engines = export_engines(
        backends,
        manifest,
        files,
        golden,
        must_build=config.backends is not None,
        cache_dir=cache_dir,
        gpu=config.gpu,
    )
    records = tuple(engine.record for engine in engines if engine.record is not None)
    files.update({engine.record.file: engine.data for engine in engines if engine.record and engine.record.file})
    if config.sign is not None:
        report(f"signing with {config.sign}")
    manifest = replace(manifest, engines=records)
    write_bundle(config.output, manifest, files, pack=config.pack, overwrite=config.overwrite, sign=signer)
    bundle = open_bundle(config.output)
    keep_engines(engines, cache_dir, bundle.digest)
    return ExportResult(bundle=bundle, engines=engines)


def _graphs(
    config: ExportConfig, source: Source, report: Report, progress: Progress
) -> tuple[Manifest, dict[str, bytes], Golden]:
    """Return the manifest without engines, the graphs and what goes with them, and the golden logits."""
    checkpoint, recipe = source.checkpoint, source.recipe
    manifest = _manifest(config, source)
    budget = budget_of(config, manifest, source.images, report, progress)
    inputs, golden_source = _golden_inputs(config.golden, recipe, source.images)
    expected = torch_logits(checkpoint, recipe, inputs)
    require_meaning(inputs, expected)
    reference = reference_graph(checkpoint, recipe, report)
    attention = add_attention_outputs(reference) if config.with_attention else ()
    if attention:
        report(f"attention outputs: {', '.join(f'{r.name} {r.height}x{r.width}' for r in attention)}")
    equalization = None
    if config.precision is Precision.INT8:
        assert source.images is not None
        reference, equalization = equalized_reference(reference, source.images, report, progress)
    require_parity(reference, checkpoint, recipe, inputs, expected)
    artifact = typed_artifact(config, reference, source, budget, report, progress)
    files = {MODEL_FILE: model_bytes(artifact.model)}
    calibration = None
    if artifact.table is not None and artifact.calibration is not None:
        calibration = replace(artifact.calibration, equalization=equalization)
        check(artifact.model)
        files[CALIBRATION_FILE] = table_to_json(artifact.table)
    if config.precision is not Precision.FP32:
        files[REFERENCE_FILE] = model_bytes(reference)
    records, logits, masks = {}, {"pytorch": expected}, {}
    for name in config.dialects:
        dialect = lower_dialect(artifact.model, name, config.precision, inputs, expected, checkpoint.task)
        report(f"lowered to the {name} dialect: {_distance(dialect.record)}")
        same = next((file for file, data in files.items() if data == dialect.graph), dialect.record.graph)
        files[same] = dialect.graph
        records[name], logits[name] = replace(dialect.record, graph=same), dialect.logits
        if attention:
            named = {record.name: dialect.attention[record.output] for record in attention}
            masks[name] = rows_from_masks(named, attention)
    golden = Golden(inputs=inputs, logits=logits, attention=masks)
    files[GOLDEN_FILE] = golden.to_bytes()
    manifest = replace(
        manifest,
        calibration=calibration,
        kept_in_float=artifact.kept_in_float,
        budget=artifact.budget,
        golden=GoldenRecord(inputs=len(inputs), source=golden_source),
        dialects=records,
        attention=attention,
    )
    return manifest, files, golden


def _distance(record: DialectRecord) -> str:
    labels = "" if record.label_agreement is None else f", {100 * record.label_agreement:.0f} % same labels"
    return f"relative L2 {record.relative_l2:.4f} from PyTorch on the golden inputs{labels}"


def _manifest(config: ExportConfig, source: Source) -> Manifest:
    """Return what is known before anything is made; calibration, golden inputs, dialects and engines come later."""
    checkpoint = source.checkpoint
    return Manifest(
        name=config.output.name.removesuffix(".zip").removesuffix(".ran"),
        task=checkpoint.task,
        architecture=checkpoint.architecture,
        output_size=checkpoint.num_classes,
        labels=source.labels,
        preprocessing=source.recipe,
        preprocessing_source=source.recipe_source,
        precision=config.precision,
        kept_in_float={},
        checkpoint=CheckpointRecord(
            file_name=config.checkpoint.name,
            sha256=checkpoint.sha256,
            layout=checkpoint.layout,
            parameters=checkpoint.parameters,
        ),
        calibration=None,
        golden=GoldenRecord(inputs=0, source=""),
        dialects={},
        engines=(),
        batch=config.batch,
        tools=tool_versions(),
        files={},
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        notes=source.notes,
    )


def _golden_inputs(
    golden: str | Path | None, recipe: Preprocessing, images: CalibrationImages | None
) -> tuple[np.ndarray, str]:
    """Return uint8 (N, H, W, 3) and where they came from."""
    if golden not in (None, SYNTHETIC):
        dataset = open_dataset(Path(golden), Split.TEST)
        count = min(GOLDEN_INPUTS, len(dataset))
        chosen = [prepare(dataset.image(index), recipe) for index in range(count)]
        # A short set is repeated: the self-test runs the engine's largest batch and wants as many inputs.
        return np.stack([chosen[i % count] for i in range(GOLDEN_INPUTS)]), f"images of {dataset.name}"
    if golden is None and images is not None and len(images.prepared) >= GOLDEN_INPUTS:
        return images.prepared[:GOLDEN_INPUTS], f"calibration images of {images.dataset}"
    return synthetic_inputs(recipe.crop), SYNTHETIC
