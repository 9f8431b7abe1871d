"""From a checkpoint to a bundle."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ran_deploy.backends import BACKENDS, dialect_of
from ran_deploy.bundle import Bundle, check_output, open_bundle, write_bundle
from ran_deploy.cache import default_cache_dir
from ran_deploy.calibration import CalibrationMethod, CalibrationTable, describe_stability, has_settled, table_to_json
from ran_deploy.converters.attention import add_attention_outputs
from ran_deploy.converters.graph import check, model_bytes
from ran_deploy.counts import counted
from ran_deploy.datasets import Dataset, Split, open_dataset
from ran_deploy.errors import ConfigError
from ran_deploy.manifest import (
    BatchProfile,
    BudgetRecord,
    CalibrationRecord,
    CheckpointRecord,
    DialectRecord,
    EqualizationRecord,
    GoldenRecord,
    Manifest,
    Task,
)
from ran_deploy.models import LoadedCheckpoint, load_checkpoint
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing, describe, prepare
from ran_deploy.signature import read_signer
from ran_deploy.verification.attention import rows_from_masks
from ran_deploy.workflows.budget import Budget, quantized_within, read_budget
from ran_deploy.workflows.calibration_table import CALIBRATION_FILE, read_table
from ran_deploy.workflows.engines import ExportedEngine, export_engines, keep_engines
from ran_deploy.workflows.evaluators import MODEL_FILE, REFERENCE_FILE
from ran_deploy.workflows.golden import GOLDEN_FILE, GOLDEN_INPUTS, Golden, synthetic_inputs
from ran_deploy.workflows.likeness import likeness_warning
from ran_deploy.workflows.lowering import lower_dialect
from ran_deploy.workflows.quantization import (
    CalibrationImages,
    Quantized,
    calibration_images,
    equalized,
    quantized,
    requantized,
)
from ran_deploy.workflows.recipe import RecipeOptions, resolve_recipe
from ran_deploy.workflows.reference import reference_graph, require_meaning, require_parity, torch_logits
from ran_deploy.workflows.selection_warnings import selection_warnings
from ran_deploy.workflows.versions import tool_versions

__all__ = ["ExportConfig", "ExportResult", "export_bundle"]

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"

Report = Callable[[str], None]
Progress = Callable[[int, int], None]  # images done, of how many


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export and how; sizes are (height, width). `golden` is a path, 'synthetic' or None for a default.

    `backends` None means every dialect, and engines for all backends that this machine can build. `task` None means
    what the checkpoint's layout is for: classification where `model` builds the network. `sign` is a private key, an
    Ed25519 PEM file. `calibration_table` is a calibration.json, or a bundle with one: its ranges are taken in place of
    calibrating if they are of this network and these calibration images. `with_attention` gives every graph the masks
    of the network as further outputs. `max_drop_pp`, in percentage points, is what INT8 may lose on `validation_data`:
    what must is kept in float. `calibration_method` None is AUTO, with a budget whichever is best.
    """

    checkpoint: Path
    output: Path
    precision: Precision = Precision.INT8
    backends: tuple[str, ...] | None = None
    calibration_data: Path | None = None
    calibration_images: int = 512
    calibration_method: CalibrationMethod | None = None
    calibration_table: Path | None = None
    max_drop_pp: float | None = None
    validation_data: Path | None = None
    batch: BatchProfile = field(default_factory=BatchProfile)
    input_size: tuple[int, int] | None = None
    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    labels: tuple[str, ...] | None = None
    task: Task | None = None
    architecture: str | None = None
    model: str | None = None
    golden: str | None = None
    with_attention: bool = False
    pack: bool = False
    overwrite: bool = False
    sign: Path | None = None
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        for backend in self.backends or ():
            dialect_of(backend)
        if self.precision is Precision.INT8 and self.calibration_data is None:
            raise ConfigError(
                "INT8 needs calibration data and none was given: add --calibration-data PATH with a few hundred "
                "typical images (a folder, CIFAR, IDX or .npz), or choose --precision fp16."
            )
        if self.calibration_table is not None and self.precision is not Precision.INT8:
            raise ConfigError(f"--calibration-table is for INT8; leave it out with --precision {self.precision.value}.")
        self._check_budget()
        if self.calibration_images < 1:
            raise ConfigError(f"--calibration-images is {self.calibration_images}; expected at least 1.")

    def _check_budget(self) -> None:
        if (self.max_drop_pp is None) != (self.validation_data is None):
            raise ConfigError(
                "--max-drop is judged on labelled images, --validation-data is for judging it: give both, or neither."
            )
        if self.max_drop_pp is not None and not 0 <= self.max_drop_pp <= 100:
            raise ConfigError(f"--max-drop is {self.max_drop_pp}; expected percentage points from 0 to 100.")
        if self.max_drop_pp is not None and self.calibration_table is not None:
            raise ConfigError("--max-drop calibrates anew, to choose the best method: leave --calibration-table out.")
        if self.max_drop_pp is not None and self.precision is not Precision.INT8:
            raise ConfigError(
                f"--max-drop decides what INT8 keeps in float, and --precision is {self.precision.value}. Leave it "
                "out, and compare the bundle with ran-validate --max-drop."
            )


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The bundle as written, and each backend's engine or the reason why there is none."""

    bundle: Bundle
    engines: tuple[ExportedEngine, ...]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What the graphs are made of."""

    checkpoint: LoadedCheckpoint
    recipe: Preprocessing
    recipe_source: str
    labels: tuple[str, ...] | None
    images: CalibrationImages | None
    table: CalibrationTable | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Artifact:
    """The typed graph, and what the manifest says of how it came about; without a table nothing was calibrated."""

    model: ir.Model
    table: CalibrationTable | None = None
    calibration: CalibrationRecord | None = None
    kept_in_float: dict[str, str] = field(default_factory=dict)
    budget: BudgetRecord | None = None


def export_bundle(
    config: ExportConfig, report: Report = logger.info, progress: Progress = lambda done, total: None
) -> ExportResult:
    """Export a checkpoint into a bundle; nothing stands at `config.output` until all of it does.

    `report` gets a line for each stage, `progress` the images done in it.
    Raises: a RanDeployError for whatever the user can cause.
    """
    signer = read_signer(config.sign) if config.sign is not None else None
    check_output(config.output, overwrite=config.overwrite)
    source = _read_source(config, report)
    manifest, files, golden = _graphs(config, source, report, progress)
    backends = config.backends or tuple(BACKENDS)
    report(f"building engines: {', '.join(backends)}")
    engines = export_engines(backends, manifest, files, golden, must_build=config.backends is not None)
    records = tuple(engine.record for engine in engines if engine.record is not None)
    files.update({engine.record.file: engine.data for engine in engines if engine.record and engine.record.file})
    if config.sign is not None:
        report(f"signing with {config.sign}")
    manifest = replace(manifest, engines=records)
    write_bundle(config.output, manifest, files, pack=config.pack, overwrite=config.overwrite, sign=signer)
    bundle = open_bundle(config.output)
    keep_engines(engines, config.cache_dir or default_cache_dir(), bundle.digest)
    return ExportResult(bundle=bundle, engines=engines)


def _read_source(config: ExportConfig, report: Report) -> _Source:
    table = read_table(config.calibration_table) if config.calibration_table is not None else None
    checkpoint = load_checkpoint(
        config.checkpoint, architecture=config.architecture, model=config.model, input_size=config.input_size
    )
    if config.task is not None:
        checkpoint = replace(checkpoint, task=config.task)
    report(
        f"checkpoint: {checkpoint.architecture}, {checkpoint.parameters / 1e6:.2f} M parameters, "
        f"{checkpoint.task.counted(checkpoint.num_classes)} "
        f"({'; '.join([f'{checkpoint.layout} layout', *checkpoint.notes])})"
    )
    dataset = open_dataset(config.calibration_data, Split.TRAIN) if config.calibration_data else None
    labels = _labels(config.labels, checkpoint, dataset)
    recipe, recipe_source = resolve_recipe(
        config.recipe,
        input_size=checkpoint.input_size,
        stored=checkpoint.preprocessing,
        layout=checkpoint.customary,
        dataset=dataset.defaults if dataset else None,
        dataset_name=dataset.name if dataset else "",
    )
    report(f"pre-processing: {describe(recipe)} ({recipe_source})")
    images = calibration_images(dataset, config.calibration_images, recipe) if dataset else None
    return _Source(
        checkpoint=checkpoint,
        recipe=recipe,
        recipe_source=recipe_source,
        labels=labels,
        images=images,
        table=table,
        notes=_notes(checkpoint, recipe, images, report) if images is not None else (),
    )


def _notes(
    checkpoint: LoadedCheckpoint, recipe: Preprocessing, images: CalibrationImages, report: Report
) -> tuple[str, ...]:
    """Say what a user should know of the calibration images, and return it for the manifest."""
    if images.left_out:
        report(images.left_out)
    classes = checkpoint.num_classes if checkpoint.task is Task.CLASSIFICATION else None
    unlike = likeness_warning(checkpoint.module, images.prepared, recipe)
    warnings = [*selection_warnings(images.digests, images.labels, classes), *([unlike] if unlike else [])]
    for warning in warnings:
        logger.warning("%s", warning)
    return (*([images.left_out] if images.left_out else []), *warnings)


def _graphs(
    config: ExportConfig, source: _Source, report: Report, progress: Progress
) -> tuple[Manifest, dict[str, bytes], Golden]:
    """Return the manifest without engines, the graphs and what goes with them, and the golden logits."""
    checkpoint, recipe = source.checkpoint, source.recipe
    manifest = _manifest(config, source)
    budget = _budget(config, manifest, source.images, report, progress)
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
        total = len(source.images.prepared)
        reference, equalization = equalized(reference, source.images, progress=lambda done: progress(done, total))
        if equalization.channels:
            report(_scaled(equalization))
    require_parity(reference, checkpoint, recipe, inputs, expected)
    artifact = _artifact(config, reference, source, budget, report, progress)
    files = {MODEL_FILE: model_bytes(artifact.model)}
    calibration = None
    if artifact.table is not None and artifact.calibration is not None:
        calibration = replace(artifact.calibration, equalization=equalization)
        _report_stability(calibration, report)
        check(artifact.model)
        files[CALIBRATION_FILE] = table_to_json(artifact.table)
    if config.precision is not Precision.FP32:
        files[REFERENCE_FILE] = model_bytes(reference)
    records, logits, masks = {}, {"pytorch": expected}, {}
    for name in _dialects(config):
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


def _calibrated(
    config: ExportConfig, reference: ir.Model, source: _Source, report: Report, progress: Progress
) -> Quantized:
    images = source.images
    assert images is not None
    shown = f"{counted(len(images.prepared), 'image')} of {images.dataset}"
    if source.table is None:
        report(f"calibrating on {shown}")
        return quantized(reference, images, config.calibration_method or CalibrationMethod.AUTO, progress=progress)
    result = requantized(reference, images, source.table)
    report(f"ranges of {config.calibration_table}, calibrated by {source.table.method.value} on these {shown}")
    return result


def _report_stability(record: CalibrationRecord, report: Report) -> None:
    """Say whether there were images enough, and warn where not."""
    if not record.stability:
        return  # fewer than 16 images: `selection_warnings` has said so
    if has_settled(record.stability[-1]):
        report(describe_stability(record.stability[-1]))
    else:
        logger.warning("%s", describe_stability(record.stability[-1]))


def _scaled(done: EqualizationRecord) -> str:
    channels, tensors = counted(done.channels, "channel"), counted(done.tensors, "tensor")
    return f"equalised {channels} of {tensors} by factors of up to {done.largest_factor:g}, which cancel out"


def _dialects(config: ExportConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys(dialect_of(backend) for backend in config.backends or BACKENDS))


def _budget(
    config: ExportConfig, manifest: Manifest, images: CalibrationImages | None, report: Report, progress: Progress
) -> Budget | None:
    """Read the validation images, before anything that takes long; None without a budget."""
    if config.max_drop_pp is None or config.validation_data is None:
        return None
    assert images is not None
    return read_budget(config.validation_data, config.max_drop_pp, manifest, images, report, progress)


def _artifact(
    config: ExportConfig,
    reference: ir.Model,
    source: _Source,
    budget: Budget | None,
    report: Report,
    progress: Progress,
) -> _Artifact:
    """Return the graph that dialects are lowered from: the reference itself, but for INT8."""
    if config.precision is not Precision.INT8:
        return _Artifact(model=reference)
    if budget is None:
        result = _calibrated(config, reference, source, report, progress)
        return _Artifact(model=result.model, table=result.table, calibration=result.record)
    images = source.images
    assert images is not None
    report(f"calibrating on {counted(len(images.prepared), 'image')} of {images.dataset}")
    methods = [config.calibration_method] if config.calibration_method else tuple(CalibrationMethod)
    cache = config.cache_dir or default_cache_dir()
    within = quantized_within(budget, reference, images, methods, _dialects(config), cache, report, progress)
    return _Artifact(
        model=within.quantized.model,
        table=within.quantized.table,
        calibration=within.quantized.record,
        kept_in_float=within.kept_in_float,
        budget=within.record,
    )


def _distance(record: DialectRecord) -> str:
    labels = "" if record.label_agreement is None else f", {100 * record.label_agreement:.0f} % same labels"
    return f"relative L2 {record.relative_l2:.4f} from PyTorch on the golden inputs{labels}"


def _manifest(config: ExportConfig, source: _Source) -> Manifest:
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
    golden: str | None, recipe: Preprocessing, images: CalibrationImages | None
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


def _labels(
    asked: tuple[str, ...] | None, checkpoint: LoadedCheckpoint, dataset: Dataset | None
) -> tuple[str, ...] | None:
    """Return the class names: those asked for, the checkpoint's, or the data set's where their number fits.

    An embedding has none: its features mean nothing one by one, and it compares classes that it was never shown.
    """
    if checkpoint.task is Task.EMBEDDING:
        if asked is not None:
            raise ConfigError(
                f"--labels names classes, but {checkpoint.architecture} is an embedding of {checkpoint.num_classes} "
                "features. Leave --labels out, or add --task classification if its outputs are logits."
            )
        return None
    if asked is not None and len(asked) != checkpoint.num_classes:
        raise ConfigError(
            f"--labels names {counted(len(asked), 'class', 'classes')}; the checkpoint has {checkpoint.num_classes}."
        )
    known = asked or checkpoint.labels
    if known is None and dataset is not None and dataset.classes and len(dataset.classes) == checkpoint.num_classes:
        return dataset.classes
    return known
