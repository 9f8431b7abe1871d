"""Which network a state dict holds: from the design it stores, from the name it is given, from its keys and shapes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path

import torch

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models.design import Design
from ran_deploy.models.layouts import LAYOUTS, Layout, Reading, Shapes, native
from ran_deploy.models.network import DESIGN_KEY, stored_design
from ran_deploy.models.state import State, without_wrapper
from ran_deploy.models.zoo import architecture_named

__all__ = ["is_weight", "recognise", "summary"]

# Each of the zoo shares 8 % or more of its keys with its layout's typical network, a ResNet or BERT under 1 %.
FOREIGN_OVERLAP = 0.03


class _ForeignError(CheckpointError):
    """The checkpoint is not even nearly of a known layout."""


def recognise(state: State, path: Path, architecture: str | None = None) -> tuple[State, str, Reading]:
    """Return the state without what wraps it, its layout's name, and that layout's reading; `path` held the state.

    `architecture` is a zoo name: it decides where keys and shapes of our own layout fit several networks, and
    otherwise must be what the checkpoint says by itself.

    Raises: CheckpointError.
    """
    try:
        return state, *_recognised(state, path, architecture)
    except CheckpointError as exc:
        refused = exc
    if (inner := without_wrapper(state)) is None:
        raise refused
    try:
        return recognise(inner, path, architecture)
    except _ForeignError:
        raise refused from None
    except CheckpointError as exc:
        raise (exc if isinstance(refused, _ForeignError) else refused) from None


def _recognised(state: State, path: Path, architecture: str | None) -> tuple[str, Reading]:
    shapes = {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}
    if DESIGN_KEY in state.tensors:
        reading = native.described(stored_design(state.tensors[DESIGN_KEY]), shapes)
        if differences := _differences(reading, shapes):
            raise CheckpointError(f"Checkpoint {path} does not fit the design it stores: {summary(differences)}.")
        _require(architecture, native.NAME, reading, path, "stores the design of")
        return native.NAME, reading
    if architecture is None:
        return _by_keys(shapes, path)
    return _by_name(architecture, shapes, path)


def _by_name(architecture: str, shapes: Shapes, path: Path) -> tuple[str, Reading]:
    reading = native.described(architecture_named(architecture).design, shapes)
    if not (differences := _differences(reading, shapes)):
        return native.NAME, reading
    try:
        layout, other = _by_keys(shapes, path)
    except CheckpointError as exc:
        raise type(exc)(
            f"Checkpoint {path} does not fit --architecture {architecture}: {summary(differences)}."
        ) from None
    _require(architecture, layout, other, path, "reads as")
    return layout, other


def _require(architecture: str | None, layout: str, reading: Reading, path: Path, verb: str) -> None:
    """Raise CheckpointError unless `reading` is of the network named `architecture`, if one is named."""
    if architecture is None or reading.design == (asked := architecture_named(architecture).design):
        return
    raise CheckpointError(
        f"Checkpoint {path} {verb} {reading.architecture} ({layout} layout), which is not the zoo's {architecture}: "
        f"{_unlike(reading.design, asked)}. Leave --architecture out, or name the right one."
    )


def _unlike(found: Design | None, asked: Design) -> str:
    """Return in which numbers and choices two designs differ."""
    if found is None:
        return "it is made of other parts"
    parts = []
    for field in fields(Design):
        values = [getattr(design, field.name) for design in (found, asked)]
        if values[0] != values[1]:
            this, that = (value.value if isinstance(value, Enum) else value for value in values)
            parts.append("other stages" if field.name == "stages" else f"{field.name} {this} instead of {that}")
    return ", ".join(parts)


def _by_keys(shapes: Shapes, path: Path) -> tuple[str, Reading]:
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
        raise _ForeignError(
            f"Checkpoint {path} ({len(shapes)} tensors) resembles no known layout ({', '.join(LAYOUTS)}): its keys are "
            f"{keys}. Give --model package.module:factory, which builds the network."
        )
    _, closest, differences = min(candidates)
    raise CheckpointError(
        f"Checkpoint {path} ({len(shapes)} tensors) has no known layout. Closest is {closest!r}: "
        f"{summary(differences)}. Known: {', '.join(LAYOUTS)}. For any other network give "
        f"--model package.module:factory."
    )


def _read(layout: Layout, shapes: Shapes) -> Reading | None:
    try:
        return layout.read(shapes)
    except ConfigError:  # the shapes make no network
        return None


def _differences(reading: Reading, shapes: Shapes) -> list[str]:
    """Return one line for each key that is missing, unexpected or of another shape."""
    try:
        with torch.device("meta"):
            module = reading.build()
    except (ValueError, RuntimeError, ZeroDivisionError) as exc:
        return [f"no network fits its shapes ({exc})"] * len(shapes)
    expected = {reading.key_of(k): tuple(t.shape) for k, t in module.state_dict().items() if is_weight(k)}
    missing = [f"missing {key}" for key in expected if key not in shapes]
    unexpected = [
        f"unexpected {key}" for key in shapes if key not in expected and is_weight(key) and not reading.is_dead(key)
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
    weights = sum(map(is_weight, shapes))
    return (weights - unexpected) / (weights + missing)


def summary(differences: Sequence[str], most: int = 3) -> str:
    """Return how many keys are missing, unexpected or of another shape, and the first of each."""
    missing = [line for line in differences if line.startswith("missing")]
    unexpected = [line for line in differences if line.startswith("unexpected")]
    others = [line for line in differences if line not in missing and line not in unexpected]
    parts = []
    for lines, kind in ((missing, "missing"), (unexpected, "unexpected"), (others, "of another shape")):
        if lines:
            named = ", ".join(line.removeprefix(kind + " ") for line in lines[:most])
            parts.append(f"{len(lines)} {kind} ({named}{', ...' if len(lines) > most else ''})")
    return "; ".join(parts)


def is_weight(key: str) -> bool:
    """Tell weights and statistics from what a network keeps beside them: counters of batches, its design."""
    return not key.endswith(("num_batches_tracked", DESIGN_KEY))
