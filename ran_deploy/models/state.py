"""Reading a checkpoint file into a flat state dict, without running any code in it."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ran_deploy.errors import CheckpointError
from ran_deploy.file_kind import PICKLE, SAFETENSORS, TORCH_SAVE, file_kind, require_checkpoint_file

# Where training scripts keep the weights; earlier ones win, so averaged weights are taken when both are there.
CONTAINERS = (
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "module",
)
ZIP_START = b"PK\x03\x04"
LARGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
DEEPEST = 4  # containers within containers, where a dict that holds itself ends, and wrappers around wrappers
# Plain values that training scripts save beside the weights; none of them can run code when it is rebuilt.
HARMLESS = [argparse.Namespace, np.dtype, np.ndarray, type(np.dtype("f8")), type(np.dtype("f4")), type(np.dtype("i8"))]
HARMLESS += [pathlib.PosixPath, pathlib.PurePosixPath]


@dataclass(frozen=True)
class State:
    """The tensors of a checkpoint by key, its string metadata, and what was unwrapped on the way."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_state(path: Path) -> State:
    """Return the state dict in `path` (.pt .pth .pkl .tar .safetensors, told by content), out of its containers.

    Raises: CheckpointError if it cannot be read, would run code, or holds no tensors.
    """
    require_checkpoint_file(path)
    try:
        read = _read_safetensors if _is_safetensors(path) else _read_torch
    except OSError as exc:
        raise CheckpointError(f"Cannot read {path} ({exc.strerror or exc}). Check its permissions.") from exc
    content, metadata = read(path)
    found, notes = _unwrap_containers(content)
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"Checkpoint {path} holds no tensors (its keys: {_listed(found)}). Save model.state_dict() and export that."
        )
    for key, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
            raise CheckpointError(f"Checkpoint {path}: {key} is no plain array of numbers. Save a float32 state dict.")
    return State(tensors, metadata, tuple(notes))


def unwrapped(state: State) -> list[State]:
    """Return the state as it is, then without one wrapper after another: `module.`, `backbone.` or any other name.

    A wrapper is the attribute that most keys stand under; what stands outside of it is left out. Some networks have
    such an attribute themselves, so the first state that fits one is the right one.
    """
    states = [state]
    while len(states) <= DEEPEST and (owner := _owner(states[-1].tensors)) is not None:
        tensors, note = _without_prefix(states[-1].tensors, owner + ".")
        states.append(replace(state, tensors=tensors, notes=(*states[-1].notes, note)))
    return states


def _owner(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first part of most keys, None if they share none."""
    owners = Counter(key.partition(".")[0] for key in tensors if "." in key).most_common(1)
    return owners[0][0] if owners and 2 * owners[0][1] > len(tensors) else None


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and head[7] == 0)


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as exc:
        raise _refused_safetensors(path, exc) from exc


def _refused_safetensors(path: Path, exc: BaseException) -> CheckpointError:
    kind, size, announced = file_kind(path), path.stat().st_size, _announced_bytes(path)
    if kind == SAFETENSORS and announced > size:
        return CheckpointError(
            f"Checkpoint {path} is cut short or damaged: {size} bytes, and its header announces at least {announced}. "
            "Copy or save it again."
        )
    if kind == SAFETENSORS:
        return CheckpointError(f"Cannot read {path} as safetensors ({_one_line(exc)}). Copy or save it again.")
    advice = "Rename it to .pth." if kind == TORCH_SAVE else kind.advice or "Copy or save it again."
    return CheckpointError(f"Checkpoint {path} is {kind.what}; expected safetensors, as its name says. {advice}")


def _announced_bytes(path: Path) -> int:
    """Return the size that the header of a safetensors file says, or of the header where that is cut; 0 if unreadable.

    Source: https://huggingface.co/docs/safetensors, "Format".
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, LARGEST_HEADER))
    if len(header) < length:
        return 8 + length
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        return 8 + length + max(ends)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return 0


def _read_torch(path: Path) -> tuple[Mapping[str, Any], dict[str, str]]:
    _check_zip(path)
    try:
        with torch.serialization.safe_globals([*HARMLESS, _numpy_scalar()]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols; what is wrong comes as an exception
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # on bytes of another kind it raises nearly anything, AssertionError too
        raise _refused_torch(path, exc) from exc
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise CheckpointError(f"Checkpoint {path} holds a {kind}; expected a state dict. Save model.state_dict().")
    return content, {}  # what a training script notes beside the weights is not ours to read


def _refused_torch(path: Path, exc: Exception) -> CheckpointError:
    kind, advice = file_kind(path), "save model.state_dict() with torch.save and export that."
    if kind not in (TORCH_SAVE, PICKLE):
        return CheckpointError(
            f"Checkpoint {path} is {kind.what}; expected a file of torch.save or safetensors. "
            + (kind.advice or advice.capitalize())
        )
    if isinstance(exc, pickle.UnpicklingError):
        return CheckpointError(
            f"Checkpoint {path} was refused: {_refused(str(exc))}, and loading it could run code. Expected tensors "
            f"alone: {advice}"
        )
    if isinstance(exc, EOFError) or "unexpected EOF" in str(exc):
        cause = "its end is missing"
    else:  # a KeyError or IndexError of the unpickler says nothing to a user
        cause = _one_line(exc) if isinstance(exc, RuntimeError) else "it holds no whole pickle"
    return CheckpointError(
        f"Checkpoint {path} is cut short or damaged ({path.stat().st_size} bytes; {cause}). Copy or save it again."
    )


def _check_zip(path: Path) -> None:
    """Compare the checksums that torch.save stores, which torch.load ignores. Raises: CheckpointError."""
    with path.open("rb") as file:
        if file.read(len(ZIP_START)) != ZIP_START or file_kind(path) != TORCH_SAVE:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            name = archive.testzip()
        damage = name and f"{name} has a wrong checksum"
    except Exception as exc:  # on damaged entries zipfile raises UnicodeDecodeError, RuntimeError and others
        damage = _one_line(exc)
    if damage:
        raise CheckpointError(f"Checkpoint {path} is damaged: {damage}. Copy or save it again.")


def _numpy_scalar() -> Any:
    """Return what pickles NumPy scalars, under the name this NumPy gives it."""
    return (getattr(np, "_core", None) or np.core).multiarray.scalar


def _unwrap_containers(content: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    notes: list[str] = []
    while len(notes) < DEEPEST and (inner := _container_of(content)) is not None:
        content = content[inner]
        notes.append(f"weights taken from its {inner!r} entry")
    return content, notes


def _container_of(content: Mapping[str, Any]) -> str | None:
    """Return the entry that holds the weights: a usual one, else the only one that holds tensors; None without any."""
    if usual := next((key for key in CONTAINERS if _holds_tensors(content.get(key))), None):
        return usual
    holders = [key for key, value in content.items() if _holds_tensors(value)]
    return holders[0] if len(holders) == 1 and not any(isinstance(v, Tensor) for v in content.values()) else None


def _holds_tensors(value: Any, depth: int = 0) -> bool:
    """Return whether there are tensors in a mapping, directly or in a container in it: it may hold settings only."""
    if not isinstance(value, Mapping) or depth == DEEPEST:
        return False
    return any(isinstance(v, Tensor) and v.ndim > 0 for v in value.values()) or any(
        _holds_tensors(value.get(key), depth + 1) for key in CONTAINERS
    )


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], str]:
    outside = [key for key in tensors if not key.startswith(prefix)]
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return inside, f"prefix {prefix!r} removed" + (f", {_listed(outside)} left out" if outside else "")


def _refused(message: str) -> str:
    """Return what PyTorch's restricted unpickler met, from its long message."""
    if found := re.search(r"(?:Unsupported global: )?GLOBAL ([\w.]+\w)", message):
        return f"it holds Python objects ({found[1]})"
    return "it is a pickle of Python objects, not torch.save's output"


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__


def _listed(keys: Any, most: int = 4) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
