"""What a configuration takes from Python: text for a path or a choice, a list for a tuple, a number of NumPy's."""

from __future__ import annotations

import enum
import numbers
import operator
import os
import reprlib
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ran_deploy.errors import ConfigError

__all__ = ["conform_fields", "conformed"]

UNIONS = (typing.Union, types.UnionType)
MANY = {str: "texts", int: "whole numbers", float: "numbers"}  # what tuples are of


def conform_fields(config: Any) -> None:
    """Give the fields of a frozen dataclass the types it declares; to be called first in its __post_init__.

    Text becomes a Path or a member of an Enum where that is declared, a list a tuple, a single text a tuple of texts.
    Raises: ConfigError naming the field, what was found and what is expected.
    """
    hints = typing.get_type_hints(type(config))
    for field in fields(config):
        value = conformed(field.name, getattr(config, field.name), hints[field.name])
        object.__setattr__(config, field.name, value)


def conformed(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type `hint`, one of them in a union. Raises: ConfigError, calling it `name`."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in UNIONS else (hint,)
    for kind in kinds:
        try:
            return _as(kind, value)
        except (TypeError, ValueError, OverflowError):
            continue
    expected = ", or ".join(_description(kind) for kind in kinds if kind is not type(None))
    raise ConfigError(f"{name} is {' '.join(reprlib.repr(value).split())}; expected {expected}.")


def _as(kind: Any, value: Any) -> Any:
    """Return `value` as `kind`. Raises: TypeError, ValueError or OverflowError if it is none."""
    if typing.get_origin(kind) is tuple:
        return _tuple(typing.get_args(kind), value)
    if kind in CONVERSIONS:
        return CONVERSIONS[kind](value)
    if issubclass(kind, enum.Enum):
        return kind(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if kinds == (str, ...) and isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple | np.ndarray):  # of a set the order is nobody's choice
        raise TypeError
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(value)
    return tuple(_as(kind, each) for kind, each in zip(kinds, value, strict=True))


def _path(value: Any) -> Path:
    name = value if isinstance(value, str) else os.fspath(value)
    if not name or "\0" in name:
        raise ValueError
    return value if isinstance(value, Path) else Path(name)


def _whole_number(value: Any) -> int:
    if isinstance(value, bool):  # an int to Python, a slip of the pen here
        raise TypeError
    return operator.index(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


CONVERSIONS: dict[Any, Callable[[Any], Any]] = {
    Path: _path,
    int: _whole_number,
    float: _number,
    bool: _truth,
}
DESCRIPTIONS = {Path: "a path", int: "a whole number", float: "a number", bool: "True or False", str: "text"}


def _description(kind: Any) -> str:
    """Return what to call `kind` in a message."""
    if kind in DESCRIPTIONS:
        return DESCRIPTIONS[kind]
    if kind == tuple[str, ...]:
        return "text, or a list of texts"
    if typing.get_origin(kind) is tuple:
        first, *others = typing.get_args(kind)
        return f"a list of {MANY[first]}" if others == [...] else f"{1 + len(others)} {MANY[first]}"
    if issubclass(kind, enum.Enum):
        return f"one of {', '.join(repr(member.value) for member in kind)}"
    return f"{kind.__name__}(...)"
