"""The file of --labels: class names, one a line, or as JSON."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from ran_deploy.errors import ConfigError

__all__ = ["read_labels"]

logger = logging.getLogger(__name__)

EXPECTED = "one class name a line, a JSON list of them, or a JSON object from index to name"


def read_labels(path: Path) -> tuple[str, ...]:
    """Return class names by index, from lines, a JSON list, or a JSON object {"0": "cat", "1": "dog"}.

    Names in JSON may be numbers, or lists that end in the name, [WordNet id, name], as Keras has them for ImageNet.
    Logs a warning for a name that stands for several classes: in ImageNet's customary list "crane" does.
    Raises: ConfigError for a file that holds anything else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte order mark
    except OSError as exc:
        raise ConfigError(f"Cannot read --labels {path} ({exc.strerror}); expected {EXPECTED}.") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--labels {path} is no UTF-8 text ({exc.reason}); expected {EXPECTED}.") from exc
    if not text.strip():
        raise ConfigError(f"--labels {path} is empty; expected {EXPECTED}.")
    labels = _from_json(text, path) if text.lstrip()[0] in "[{" else _from_lines(text)
    if repeated := [f"{label!r} ({count} times)" for label, count in Counter(labels).items() if count > 1]:
        more = ", ..." if len(repeated) > 3 else ""
        logger.warning("%s repeats %s%s: results tell them apart by index only", path, ", ".join(repeated[:3]), more)
    return labels


def _from_lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _from_json(text: str, path: Path) -> tuple[str, ...]:
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        raise ConfigError(f"--labels {path} begins like JSON but is none ({exc}); expected {EXPECTED}.") from exc
    values = content if isinstance(content, list) else _by_index(content, path)
    if not values:
        raise ConfigError(f"--labels {path} holds no names; expected {EXPECTED}.")
    return tuple(_name(value, index, path) for index, value in enumerate(values))


def _by_index(content: dict[str, Any], path: Path) -> list[Any]:
    wanted = [str(index) for index in range(len(content))]
    if content.keys() == set(wanted):
        return [content[index] for index in wanted]
    if sorted(content.values(), key=str) == sorted(range(len(content)), key=str):  # as class_to_idx of torchvision
        return sorted(content, key=content.__getitem__)
    odd = next(key for key in content if key not in wanted)
    raise ConfigError(f"--labels {path} has the key {odd!r}; expected the indices 0 to {len(content) - 1} as keys.")


def _name(value: Any, index: int, path: Path) -> str:
    name = value[-1] if isinstance(value, list) and value else value
    if isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
        raise ConfigError(f"--labels {path} has {json.dumps(value)[:40]} for class {index}; expected its name.")
    return str(name).strip()
