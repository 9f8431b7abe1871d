"""Loading a checkpoint of any known layout into the reference network, and saving ours."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.manifest import Task
from ran_deploy.models.layouts import LAYOUTS, Layout, Reading, Shapes, native
from ran_deploy.models.network import DESIGN_KEY, stored_design
from ran_deploy.models.state import State, read_state
from ran_deploy.preprocessing import Preprocessing

__all__ = ["LoadedCheckpoint", "load_checkpoint", "save_checkpoint"]

# Each of the zoo shares 8 % or more of its keys with its layout's typical network, a ResNet or BERT under 1 %.
FOREIGN_OVERLAP = 0.03


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A network with its weights, and what the checkpoint says of it.

    `module` is in evaluation mode and float32: normalised images (N, 3, H, W) in, logits (N, num_classes) out; where
    `task` is embedding, num_classes is the number of features. `input_size` is (height, width). `labels` and
    `preprocessing` (recipe as JSON text) are None unless stored; `customary` is the recipe of the layout's own code.
    """

    module: nn.Module
    layout: str
    architecture: str
    task: Task
    num_classes: int
    input_size: tuple[int, int]
    customary: Preprocessing | None
    labels: tuple[str, ...] | None
    preprocessing: str | None
    sha256: str
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of learnable values in the network."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def load_checkpoint(
    path: str | Path, *, model: str | None = None, input_size: tuple[int, int] | None = None
) -> LoadedCheckpoint:
    """Return the network `path` holds; the layout is recognised from keys and shapes.

    `model` is a 'package.module:factory' that returns the network instead; its code is executed. `input_size`
    (height, width) replaces the one the layout implies, and is needed with `model`.

    Raises: CheckpointError if the file cannot be read safely or is of no known layout, which names the closest one;
    ConfigError if the network cannot take `input_size`.
    """
    path = Path(path)
    state = read_state(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if model is not None:
        if input_size is None:
            raise ConfigError("With --model the input size cannot be told from the checkpoint; add --input-size HxW.")
        return _from_factory(model, state, path, digest, input_size)
    name, reading = _described(state, path) if DESIGN_KEY in state.tensors else _recognise(state, path)
    if input_size is not None:
        reading = replace(reading, input_size=input_size)
        if reading.design is not None:
            reading.design.check_input_size(*input_size)
    with torch.device("meta"):
        module = reading.build()
    tensors = {key: state.tensors[reading.key_of(key)] for key in module.state_dict() if _is_weight(key)}
    return _loaded(module, tensors, state, path, digest, layout=name, reading=reading)


def _loaded(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    state: State,
    path: Path,
    digest: str,
    *,
    layout: str,
    reading: Reading,
) -> LoadedCheckpoint:
    weights = {key: _float32(key, tensor, path) for key, tensor in tensors.items()}
    module.load_state_dict({**weights, **_others(module)}, assign=True)
    module.eval().requires_grad_(requires_grad=True)
    labels = state.metadata.get("labels")
    return LoadedCheckpoint(
        module=module,
        layout=layout,
        architecture=state.metadata.get("architecture", reading.architecture),
        task=reading.task,
        num_classes=reading.num_classes,
        input_size=reading.input_size,
        customary=reading.preprocessing,
        labels=_labels(labels, reading.num_classes, path) if labels else None,
        preprocessing=state.metadata.get("preprocessing"),
        sha256=digest,
        notes=state.notes,
    )


def save_checkpoint(
    path: str | Path,
    module: nn.Module,
    *,
    architecture: str,
    labels: Sequence[str] | None = None,
    preprocessing: str | None = None,
) -> None:
    """Write the network's state dict as safetensors, with what an export needs to know beside it.

    `preprocessing` is the recipe as JSON text, as in a bundle's manifest.
    """
    from safetensors.torch import save_file

    metadata = {"architecture": architecture}
    if labels is not None:
        metadata["labels"] = json.dumps(list(labels))
    if preprocessing is not None:
        metadata["preprocessing"] = preprocessing
    tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
    save_file(tensors, str(path), metadata)


def _recognise(state: State, path: Path) -> tuple[str, Reading]:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}
    candidates = []
    for name, module in LAYOUTS.items():
        layout: Layout = importlib.import_module(module)
        reading = _read(layout, shapes)
        differences = _differences(reading or layout.typical(), shapes)
        if reading is not None and not differences:
            return name, reading
        candidates.append((len(differences), name, differences))
    if max(_overlap(differences, shapes) for _, _, differences in candidates) < FOREIGN_OVERLAP:
        keys = ", ".join(list(shapes)[:4]) + (f" and {len(shapes) - 4} more" if len(shapes) > 4 else "")
        raise CheckpointError(
            f"Checkpoint {path} ({len(shapes)} tensors) resembles no known layout ({', '.join(LAYOUTS)}): its keys are "
            f"{keys}. Give --model package.module:factory, which builds the network."
        )
    _, closest, differences = min(candidates)
    raise CheckpointError(
        f"Checkpoint {path} ({len(shapes)} tensors) has no known layout. Closest is {closest!r}: "
        f"{_summary(differences)}. Known: {', '.join(LAYOUTS)}. For any other network give "
        f"--model package.module:factory."
    )


def _read(layout: Layout, shapes: Shapes) -> Reading | None:
    try:
        return layout.read(shapes)
    except ConfigError:  # the shapes make no network
        return None


def _described(state: State, path: Path) -> tuple[str, Reading]:
    """Return our own layout's reading of a state dict that stores its design."""
    design = stored_design(state.tensors[DESIGN_KEY])
    shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}
    reading = native.described(design, shapes)
    if differences := _differences(reading, shapes):
        raise CheckpointError(f"Checkpoint {path} does not fit the design it stores: {_summary(differences)}.")
    return native.NAME, reading


def _differences(reading: Reading, shapes: Shapes) -> list[str]:
    """Return one line for each key that is missing, unexpected or of another shape."""
    try:
        with torch.device("meta"):
            module = reading.build()
    except (ValueError, RuntimeError, ZeroDivisionError) as exc:
        return [f"no network fits its shapes ({exc})"] * len(shapes)
    expected = {reading.key_of(k): tuple(t.shape) for k, t in module.state_dict().items() if _is_weight(k)}
    missing = [f"missing {key}" for key in expected if key not in shapes]
    unexpected = [
        f"unexpected {key}" for key in shapes if key not in expected and _is_weight(key) and not reading.is_dead(key)
    ]
    reshaped = [
        f"{key} has shape {shapes[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    return missing + unexpected + reshaped


def _overlap(differences: Sequence[str], shapes: Shapes) -> float:
    """Return which part of all keys, of the checkpoint and of the layout, both have."""
    missing, unexpected = (sum(line.startswith(kind) for line in differences) for kind in ("missing", "unexpected"))
    weights = sum(map(_is_weight, shapes))
    return (weights - unexpected) / (weights + missing)


def _summary(differences: Sequence[str], most: int = 3) -> str:
    missing = [line for line in differences if line.startswith("missing")]
    unexpected = [line for line in differences if line.startswith("unexpected")]
    others = [line for line in differences if line not in missing and line not in unexpected]
    parts = []
    for lines, kind in ((missing, "missing"), (unexpected, "unexpected"), (others, "of another shape")):
        if lines:
            named = ", ".join(line.removeprefix(kind + " ") for line in lines[:most])
            parts.append(f"{len(lines)} {kind} ({named}{', ...' if len(lines) > most else ''})")
    return "; ".join(parts)


def _from_factory(model: str, state: State, path: Path, digest: str, input_size: tuple[int, int]) -> LoadedCheckpoint:
    module = _call_factory(model).float().eval()
    expected = module.state_dict()
    missing = [f"missing {key}" for key in expected if key not in state.tensors and _is_weight(key)]
    unexpected = [f"unexpected {key}" for key in state.tensors if key not in expected]
    if missing or unexpected:
        raise CheckpointError(f"Checkpoint {path} does not fit --model {model}: {_summary(missing + unexpected)}.")
    try:
        with torch.no_grad():
            outputs = module(torch.zeros(1, 3, *input_size))
    except (RuntimeError, ValueError, TypeError) as exc:
        cause = " ".join(str(exc).split())[:200]
        raise ConfigError(
            f"--model {model} does not take an input of (1, 3, {input_size[0]}, {input_size[1]}): {cause}"
        ) from exc
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise ConfigError(f"--model {model} returns {_kind(outputs)}; expected logits of shape (N, classes).")
    reading = Reading(
        architecture=model,
        num_classes=outputs.shape[1],
        input_size=input_size,
        build=lambda: module,
        key_of=lambda key: key,
        is_dead=lambda key: False,
    )
    tensors = {key: tensor for key, tensor in state.tensors.items() if _is_weight(key)}
    return _loaded(module, tensors, state, path, digest, layout="custom", reading=reading)


def _call_factory(model: str) -> nn.Module:
    package, _, name = model.partition(":")
    if not name:
        raise ConfigError(f"--model is {model!r}; expected package.module:factory.")
    try:
        factory = getattr(importlib.import_module(package), name)
    except (ImportError, AttributeError) as exc:
        raise ConfigError(f"--model {model} cannot be imported ({exc}); check the name and PYTHONPATH.") from exc
    try:
        module = factory()
    except Exception as exc:  # a user's code can raise anything
        raise ConfigError(
            f"--model {model} failed ({type(exc).__name__}: {exc}); it is called without arguments."
        ) from exc
    if not isinstance(module, nn.Module):
        raise ConfigError(f"--model {model} returned {_kind(module)}; expected a torch.nn.Module.")
    return module


def _float32(key: str, tensor: Tensor, path: Path) -> Tensor:
    if not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"Checkpoint {path}: {key} holds {kind}; expected floating point. Save float weights.")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"Checkpoint {path}: {key} holds NaN or infinity. Export a checkpoint that works.")
    return tensor.float()


def _labels(text: str, num_classes: int, path: Path) -> tuple[str, ...]:
    try:
        labels = json.loads(text)
    except json.JSONDecodeError:
        labels = None
    if not isinstance(labels, list) or len(labels) != num_classes:
        found = f"{len(labels)} labels" if isinstance(labels, list) else f"{text[:40]!r}, no JSON list,"
        raise CheckpointError(f"Checkpoint {path} stores {found} for {num_classes} classes. Save it again.")
    return tuple(map(str, labels))


def _is_weight(key: str) -> bool:
    """Tell weights and statistics from what a network keeps beside them: counters of batches, its design."""
    return not key.endswith(("num_batches_tracked", DESIGN_KEY))


def _others(module: nn.Module) -> dict[str, Tensor]:
    """Return the entries of the state dict that are no weights, counters at zero."""
    others = {key: value for key, value in module.state_dict().items() if not _is_weight(key)}
    return {key: torch.zeros((), dtype=torch.int64) if value.is_meta else value for key, value in others.items()}


def _kind(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
