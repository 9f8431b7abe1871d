"""From the suffix of a file to the sink that writes it."""

from __future__ import annotations

from pathlib import Path

from ran_deploy.bundle_writing import refuse_inside_bundle
from ran_deploy.errors import ConfigError
from ran_deploy.runtime.answers import Answers
from ran_deploy.runtime.array_sink import NpySink
from ran_deploy.runtime.sinks import CsvSink, JsonlSink, Sink

__all__ = ["open_sink"]

SINKS: dict[str, type[Sink]] = {".jsonl": JsonlSink, ".csv": CsvSink, ".npy": NpySink}


def open_sink(path: Path, answers: Answers) -> Sink:
    """Return the sink for the suffix of `path`. Raises: ConfigError for another suffix; OutputError if unwritable."""
    suffix = path.suffix.lower()
    if suffix not in SINKS:
        raise ConfigError(f"{path}: results are written as {', '.join(SINKS)}; found {suffix or 'no suffix'}.")
    refuse_inside_bundle(path)
    return SINKS[suffix](path, answers)
