"""A bundle's engine as a model of NVIDIA Triton Inference Server: one folder of a model repository.

Source: Triton's user guide, Model Repository and Model Configuration; the text is that of its `ModelConfig` message.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ran_deploy.bundle import Bundle
from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.errors import ConfigError, OutputError
from ran_deploy.manifest import BatchProfile, Manifest
from ran_deploy.runtime.predictor import INPUT, OUTPUT
from ran_deploy.whole_file import write_whole, write_whole_folder
from ran_deploy.workflows.engines.loading import find_engine, require_dialect

__all__ = ["SERVED", "WITH_WEIGHTS", "best_served", "model_config", "model_name", "write_triton_model"]

LABELS = "labels.txt"
WITH_WEIGHTS = "Triton gives an engine no weights, so it needs one that has them: build it without --strip-weights."
Field = str | int | bool | Mapping[str, "Field"] | Sequence["Field"]


class Word(str):
    """A value that is written without quotes: a name of an enum."""


@dataclass(frozen=True, kw_only=True)
class TritonBackend:
    """How Triton runs an engine family: what its configuration names, the model's file, and on what it runs."""

    settings: Mapping[str, Field]
    file: str
    kind: str


SERVED = {  # best first
    "tensorrt": TritonBackend(settings={"platform": "tensorrt_plan"}, file="model.plan", kind="KIND_GPU"),
    "onnxruntime": TritonBackend(settings={"platform": "onnxruntime_onnx"}, file="model.onnx", kind="KIND_CPU"),
    "openvino": TritonBackend(
        settings={"backend": "openvino", "default_model_filename": "model.onnx"}, file="model.onnx", kind="KIND_CPU"
    ),
}


def best_served(backends: Iterable[str]) -> str:
    """Return the one of `backends` that Triton serves best. Raises: ConfigError if it serves none."""
    chosen = set(backends)
    best = next((backend for backend in SERVED if backend in chosen), None)
    if best is None:
        raise ConfigError(f"Triton serves engines of {', '.join(SERVED)}; there is {', '.join(sorted(chosen))} alone.")
    return best


def write_triton_model(
    bundle: Bundle,
    backend: str,
    repository: Path,
    *,
    batch: BatchProfile | None = None,
    cache_dir: Path | None = None,
) -> Path:
    """Add the engine of `backend` to a model repository and return the folder of its version.

    It becomes version 1 of a new model, or the next version of the model of that name, which Triton then rolls out.
    A version is whole or not there. TensorRT plans are those of this machine, as Triton on it loads no other; for
    ONNX Runtime and OpenVINO it is the bundle's graph, which Triton compiles. `batch` None are the bundle's sizes; a
    TensorRT plan has its own.
    Raises: ConfigError for a backend Triton lacks, for a plan that was never built here, takes no single image or lacks
    its weights, and for a model of that name that is configured in another way; OutputError.
    """
    served = _served(backend)
    refuse_inside_bundle(repository / "model")
    data, built = _model_file(bundle, backend, cache_dir)
    config = model_config(bundle.manifest, backend, built or batch or bundle.manifest.batch)
    folder = repository / model_name(bundle.manifest.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_or_write(folder / "config.pbtxt", config)
        if bundle.manifest.labels is not None:
            _keep_or_write(folder / LABELS, "".join(f"{_one_line(label)}\n" for label in bundle.manifest.labels))
        return _add_version(folder, served.file, data)
    except OSError as exc:
        raise OutputError(f"Cannot write {folder} ({exc.strerror or exc}). Give another --triton.") from exc


def model_name(name: str) -> str:
    """Return `name` as Triton's clients can put it into an URL: letters, digits, underscore, dot and minus."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".") or "model"


def model_config(manifest: Manifest, backend: str, batch: BatchProfile) -> str:
    """Return config.pbtxt: uint8 NHWC in, float32 out, batched by the server, warmed up before it is ready."""
    served = _served(backend)
    height, width = manifest.preprocessing.crop
    outputs = [_output(OUTPUT, manifest.output_size)]
    if manifest.labels is not None:
        outputs[0]["label_filename"] = LABELS
    outputs += [_output(mask.output, mask.height, mask.width) for mask in manifest.attention]
    image: dict[str, Field] = {"data_type": Word("TYPE_UINT8"), "dims": [height, width, 3]}
    # A TensorRT engine is tuned for one batch size; the others are as good at any.
    batching: dict[str, Field] = {"preferred_batch_size": [batch.optimum]} if backend == "tensorrt" else {}
    sizes = sorted({batch.minimum, batch.optimum, batch.maximum})
    fields: dict[str, Field] = {
        "name": model_name(manifest.name),
        **served.settings,
        "max_batch_size": batch.maximum,
        "input": [{"name": INPUT, **image}],
        "output": outputs,
        "dynamic_batching": batching,
        "instance_group": [{"count": 1, "kind": Word(served.kind)}],
        "model_warmup": [
            {
                "name": f"batch of {size}",
                "batch_size": size,
                "inputs": {"key": INPUT, "value": {**image, "random_data": True}},
            }
            for size in sizes
        ],
    }
    return "\n".join(_lines(fields)) + "\n"


def _output(name: str, *dims: int) -> dict[str, Field]:
    return {"name": name, "data_type": Word("TYPE_FP32"), "dims": dims}


def _served(backend: str) -> TritonBackend:
    if backend not in SERVED:
        raise ConfigError(f"Triton has no backend for {backend}; choose --backend {', '.join(SERVED)}.")
    return SERVED[backend]


def _model_file(bundle: Bundle, backend: str, cache_dir: Path | None) -> tuple[bytes, BatchProfile | None]:
    """Return what Triton loads, and the batch sizes it was built for; None if Triton builds it."""
    dialect = require_dialect(bundle, backend)
    if backend != "tensorrt":
        return bundle.read(bundle.manifest.dialects[dialect].graph), None
    engine = find_engine(bundle, backend, cache_dir)
    if engine is None:
        raise ConfigError(
            f"There is no TensorRT engine of {bundle.path} for this machine. Build it on the server, beside Triton's "
            f"TensorRT version: ran-build {shlex.quote(str(bundle.path))} --backend tensorrt."
        )
    if engine.refit_from is not None:
        raise ConfigError(WITH_WEIGHTS)
    if engine.batch.minimum != 1:
        raise ConfigError(
            f"The TensorRT engine takes batches from {engine.batch.minimum}; Triton sends single images too. Build it "
            f"with --batch 1:{engine.batch.optimum}:{engine.batch.maximum}."
        )
    return engine.data, engine.batch


def _keep_or_write(path: Path, text: str) -> None:
    """Write a file of the model, or make sure that the one there says the same: versions share it."""
    if not path.exists():
        write_whole(path, text.encode())
    elif path.read_bytes() != text.encode():
        raise ConfigError(
            f"{path} is of another model, or changed since. Remove {path.parent}, or export under another name."
        )


def _add_version(folder: Path, file: str, data: bytes) -> Path:
    versions = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    version = folder / str(max(versions, default=0) + 1)
    write_whole_folder(version, {file: data})  # Triton reads folders with numbers for names alone
    return version


def _one_line(label: str) -> str:
    return " ".join(label.split())


def _lines(fields: Mapping[str, Field], indent: str = "") -> Iterator[str]:
    """Yield protobuf's text format; a sequence is written as one field after another."""
    for name, value in fields.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(item)}"


def _scalar(value: Field) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return f'"{value}"'  # all our strings are free of quotes and backslashes: see `model_name`
    return str(value)
