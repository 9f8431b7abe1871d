"""Loading a checkpoint of any known layout into the reference network, and saving ours."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.manifest import Task
from ran_deploy.models.differences import differences, is_weight
from ran_deploy.models.layouts import Reading
from ran_deploy.models.recognition import recognise, shapes_of
from ran_deploy.models.state import State, read_state, unwrapped
from ran_deploy.models.zoo import architecture_named
from ran_deploy.preprocessing import Preprocessing
from ran_deploy.whole_file import write_whole

__all__ = ["LoadedCheckpoint", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True, kw_only=True)
class LoadedCheckpoint:
    """A network with its weights, and what the checkpoint says of it.

    `module` is in evaluation mode and float32: normalised images (N, 3, H, W) in, logits (N, num_classes) out; where
    `task` is embedding, num_classes is the number of features. `input_size` is (height, width): what was asked for, the
    stored recipe's crop, or the layout's. `labels` and `preprocessing` are None unless stored; `customary` is the
    recipe of the layout's own code.
    """

    module: nn.Module
    layout: str
    architecture: str
    task: Task
    num_classes: int
    input_size: tuple[int, int]
    customary: Preprocessing | None
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    sha256: str
    notes: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """Number of learnable values in the network."""
        return sum(parameter.numel() for parameter in self.module.parameters())


def load_checkpoint(
    path: str | Path,
    *,
    architecture: str | None = None,
    model: str | None = None,
    input_size: tuple[int, int] | None = None,
) -> LoadedCheckpoint:
    """Return the network `path` holds; the layout is recognised from keys and shapes.

    `architecture` is the zoo's name of the network, for state dicts whose keys cannot tell. `model` is a
    'package.module:factory' that returns the network instead; its code is executed. `input_size` (height, width)
    replaces the one that checkpoint or layout imply, and is needed with `model` where the checkpoint stores none.

    Raises: CheckpointError if the file cannot be read safely, is of no known layout, which names the closest one, or
    is not of `architecture`; ConfigError if the network cannot take `input_size`.
    """
    path = Path(path)
    if architecture is not None:
        if model is not None:
            raise ConfigError("--architecture and --model both say what the network is; give one of them.")
        architecture_named(architecture)  # before a large file is read
    state = read_state(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if input_size is None and (stored := _recipe(state, path)) is not None:
        input_size = stored.crop
    if model is not None:
        if input_size is None:
            raise ConfigError("With --model the input size cannot be told from the checkpoint; add --input-size HxW.")
        return _from_factory(model, unwrapped(state), path, digest, input_size)
    state, name, reading = recognise(unwrapped(state), path, architecture)
    if reading.num_classes < 1:
        raise CheckpointError(f"Checkpoint {path} is of a network without outputs; expected at least one class.")
    if input_size is not None:
        reading = replace(reading, input_size=input_size)
        if reading.design is not None:
            reading.design.check_input_size(*input_size)
    with torch.device("meta"):
        module = reading.build()
    tensors = {key: state.tensors[reading.key_of(key)] for key in module.state_dict() if is_weight(key)}
    loaded = _loaded(module, tensors, state, path, digest, layout=name, reading=reading)
    return loaded if architecture is None else replace(loaded, architecture=architecture)


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
    wanted = module.state_dict()
    weights = {key: _converted(reading.key_of(key), tensor, wanted[key], path) for key, tensor in tensors.items()}
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
        preprocessing=_recipe(state, path),
        sha256=digest,
        notes=state.notes,
    )


def save_checkpoint(
    path: str | Path,
    module: nn.Module,
    *,
    architecture: str,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write the network's state dict as safetensors, with what an export needs to know beside it.

    Raises: OutputError; what stood at `path` then still stands there.
    """
    from safetensors.torch import save

    metadata = {"architecture": architecture}
    if labels is not None:
        metadata["labels"] = json.dumps(list(labels))
    if preprocessing is not None:
        metadata["preprocessing"] = msgspec.json.encode(preprocessing).decode()
    tensors = {key: tensor.detach().contiguous() for key, tensor in module.state_dict().items()}
    write_whole(Path(path), save(tensors, metadata))


def _from_factory(
    model: str, states: Sequence[State], path: Path, digest: str, input_size: tuple[int, int]
) -> LoadedCheckpoint:
    module = _call_factory(model).float().eval()
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    fits = [(state, differences(expected, shapes_of(state))) for state in states]
    state, unlike = min(fits, key=lambda fit: len(fit[1]))
    if unlike:
        raise CheckpointError(f"Checkpoint {path} does not fit --model {model}: {unlike}.")
    try:
        with torch.no_grad():
            outputs = module(torch.zeros(1, 3, *input_size))
    except Exception as exc:  # a user's code can raise anything
        cause = " ".join(str(exc).split())[:200] or type(exc).__name__
        raise ConfigError(
            f"--model {model} does not take an input of (1, 3, {input_size[0]}, {input_size[1]}): {cause}"
        ) from exc
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[1] < 1:
        raise ConfigError(f"--model {model} returns {_kind(outputs)}; expected logits of shape (N, classes).")
    reading = Reading(
        architecture=model,
        num_classes=outputs.shape[1],
        input_size=input_size,
        build=lambda: module,
        key_of=lambda key: key,
        is_dead=lambda key: False,
    )
    tensors = {key: tensor for key, tensor in state.tensors.items() if is_weight(key)}
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


def _converted(key: str, tensor: Tensor, wanted: Tensor, path: Path) -> Tensor:
    """Return weights as float32, and tables of integers or truth values, which some networks keep, as they are."""
    if tensor.is_floating_point() != wanted.is_floating_point():
        kinds = [str(value.dtype).removeprefix("torch.") for value in (tensor, wanted)]
        raise CheckpointError(
            f"Checkpoint {path}: {key} holds {kinds[0]}; expected {kinds[1]}. Save a float state dict."
        )
    if not tensor.is_floating_point():
        return tensor.to(wanted.dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"Checkpoint {path}: {key} holds NaN or infinity. Export a checkpoint that works.")
    return tensor.float()


def _recipe(state: State, path: Path) -> Preprocessing | None:
    """Return the pre-processing that the checkpoint stores, None if it stores none."""
    if (text := state.metadata.get("preprocessing")) is None:
        return None
    try:
        return msgspec.convert(json.loads(text), Preprocessing, strict=False)
    except (json.JSONDecodeError, msgspec.ValidationError) as exc:
        raise CheckpointError(
            f"The pre-processing in checkpoint {path} cannot be read ({exc}). Save it again."
        ) from exc


def _labels(text: str, num_classes: int, path: Path) -> tuple[str, ...]:
    try:
        labels = json.loads(text)
    except json.JSONDecodeError:
        labels = None
    if not isinstance(labels, list) or len(labels) != num_classes:
        found = f"{len(labels)} labels" if isinstance(labels, list) else f"{text[:40]!r}, no JSON list,"
        raise CheckpointError(f"Checkpoint {path} stores {found} for {num_classes} classes. Save it again.")
    return tuple(map(str, labels))


def _others(module: nn.Module) -> dict[str, Tensor]:
    """Return the entries of the state dict that are no weights, counters at zero."""
    others = {key: value for key, value in module.state_dict().items() if not is_weight(key)}
    return {key: torch.zeros((), dtype=torch.int64) if value.is_meta else value for key, value in others.items()}


def _kind(value: object) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
