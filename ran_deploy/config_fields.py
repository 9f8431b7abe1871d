"""What a configuration takes from Python: text for a path or for a choice, a list for a tuple."""

from __future__ import annotations

import enum
import os
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

from ran_deploy.errors import ConfigError

__all__ = ["accept_text"]


def accept_text(config: Any) -> None:
    """Give the fields of a frozen dataclass the types it declares; to be called first in its __post_init__.

    Text becomes a Path or a member of an Enum where that is declared, a list or a single text a tuple of texts.
    Raises: ConfigError naming the field, what was found and what is expected.
    """
    hints = typing.get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        object.__setattr__(config, field.name, _accepted(field.name, value, _alternatives(hints[field.name])))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type alone."""
    return typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)


def _accepted(name: str, value: Any, types: tuple[Any, ...]) -> Any:
    if value is None:
        if type(None) not in types:
            raise ConfigError(f"{name} is None; expected a value.")
        return None
    for kind in types:
        if kind is Path and not isinstance(value, Path):
            return _path(name, value)
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and not isinstance(value, kind):
            return _member(name, value, kind)
        if kind == tuple[str, ...]:
            return _texts(name, value)
    return value


def _path(name: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{name} is {value!r}; expected a path.")
    return Path(value)


def _member(name: str, value: Any, kind: type[enum.Enum]) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in kind)
        raise ConfigError(f"{name} is {value!r}; expected one of {choices}.") from None


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise ConfigError(f"{name} is {value!r}; expected text, or a list of texts.")
    return tuple(texts)
