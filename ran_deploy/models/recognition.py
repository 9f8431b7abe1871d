"""Which network a state dict holds: from the design it stores, from the name it is given, from its keys and shapes."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from enum import Enum
from pathlib import Path

import torch

from ran_deploy.errors import CheckpointError, ConfigError
from ran_deploy.models.design import Design
from ran_deploy.models.differences import Differences, differences, is_weight
from ran_deploy.models.layouts import LAYOUTS, Layout, Reading, Shapes, native
from ran_deploy.models.network import DESIGN_KEY, stored_design
from ran_deploy.models.state import State
from ran_deploy.models.zoo import architecture_named

__all__ = ["recognise"]

# Each of the zoo shares 8 % or more of its keys with its layout's typical network, a ResNet or BERT under 1 %.
FOREIGN_OVERLAP = 0.03


def recognise(states: Sequence[State], path: Path, architecture: str | None = None) -> tuple[State, str, Reading]:
    """Return the state that is of a known layout, that layout's name, and its reading.

    `states` are what `path` holds, as it was saved and without one wrapper after another. `architecture` is a zoo
    name: it decides where keys and shapes of our own layout fit several networks, and otherwise must be what the
    checkpoint says by itself.

    Raises: CheckpointError.
    """
    for state in states:
        if DESIGN_KEY in state.tensors:
            return state, native.NAME, _by_stored_design(state, path, architecture)
    if architecture is not None:
        fits = [(state, *_by_name(architecture, shapes_of(state))) for state in states]
        state, reading, unlike = min(fits, key=lambda fit: len(fit[-1]))
        if not unlike:
            return state, native.NAME, reading
    for state in states:
        if (found := _by_keys(shapes_of(state))) is not None:
            _require(architecture, *found, path, "reads as")
            return state, *found
    if architecture is not None:
        raise CheckpointError(f"Checkpoint {path} does not fit --architecture {architecture}: {unlike}.")
    raise _unknown(states, path)


def shapes_of(state: State) -> Shapes:
    """Return the shapes of its tensors by key."""
    return {key: tuple(tensor.shape) for key, tensor in state.tensors.items()}


def _by_stored_design(state: State, path: Path, architecture: str | None) -> Reading:
    reading = native.described(stored_design(state.tensors[DESIGN_KEY]), shapes_of(state))
    if unlike := _differences(reading, shapes_of(state)):
        raise CheckpointError(f"Checkpoint {path} does not fit the design it stores: {unlike}.")
    _require(architecture, native.NAME, reading, path, "stores the design of")
    return reading


def _by_name(architecture: str, shapes: Shapes) -> tuple[Reading, Differences]:
    reading = native.described(architecture_named(architecture).design, shapes)
    return reading, _differences(reading, shapes)


def _by_keys(shapes: Shapes) -> tuple[str, Reading] | None:
    fits = ((name, _fit(layout, shapes)) for name, layout in _layouts())
    return next(((name, fit[0]) for name, fit in fits if fit is not None and not fit[1]), None)


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


def _unknown(states: Sequence[State], path: Path) -> CheckpointError:
    """Return the error that names the closest layout, under whatever wrapper that is."""
    closest: tuple[str, Differences] | None = None
    for shapes in map(shapes_of, states):
        for name, layout in _layouts():
            fit = _fit(layout, shapes)
            found = fit[1] if fit is not None else _differences(layout.typical(), shapes)
            is_near = _overlap(found, shapes) >= FOREIGN_OVERLAP
            if is_near and (closest is None or len(found) < len(closest[1])):
                closest = (name, found)
    if closest is not None:
        return CheckpointError(
            f"Checkpoint {path} ({len(states[0].tensors)} tensors) has no known layout. Closest is {closest[0]!r}: "
            f"{closest[1]}. Known: {', '.join(LAYOUTS)}. For any other network give --model package.module:factory."
        )
    saved = list(states[0].tensors)
    keys = ", ".join(saved[:4]) + (f" and {len(saved) - 4} more" if len(saved) > 4 else "")
    return CheckpointError(
        f"Checkpoint {path} ({len(saved)} tensors) resembles no known layout ({', '.join(LAYOUTS)}): its keys are "
        f"{keys}. Give --model package.module:factory, which builds the network."
    )


def _layouts() -> Iterator[tuple[str, Layout]]:
    for name, module in LAYOUTS.items():
        layout: Layout = importlib.import_module(module)
        yield name, layout


def _fit(layout: Layout, shapes: Shapes) -> tuple[Reading, Differences] | None:
    """Return what the layout reads and how the shapes differ from that, None where they make no network of it."""
    try:
        reading = layout.read(shapes)
        return None if reading is None else (reading, _differences(reading, shapes))
    except (ConfigError, IndexError, ValueError, RuntimeError, ZeroDivisionError):  # a stranger's shapes can be any
        return None


def _differences(reading: Reading, shapes: Shapes) -> Differences:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers without outputs, which are refused when it is known whose they are
        module = reading.build()
    expected = {reading.key_of(k): tuple(t.shape) for k, t in module.state_dict().items() if is_weight(k)}
    return differences(expected, shapes, reading.is_dead)


def _overlap(unlike: Differences, shapes: Shapes) -> float:
    """Return which part of all keys, of the checkpoint and of the layout, both have."""
    weights = sum(map(is_weight, shapes))
    return (weights - len(unlike.unexpected)) / max(weights + len(unlike.missing), 1)
