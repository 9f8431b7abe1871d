"""What gpu_check and gpu_runtime_check both keep of a run: where, when and with what, as JSON beside its tables."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from gpu.device import device_record

from ran_deploy.whole_file import write_whole
from ran_deploy.workflows.exporting.versions import tool_versions


@dataclass(frozen=True, kw_only=True)
class Record:
    """A run. `device` was read before and `device_after` after the measurements."""

    created: str
    command: str
    tools: dict[str, str]
    device: dict[str, object]
    device_after: dict[str, object]


def record_of(script: str, arguments: Sequence[str] | None, device: dict[str, object]) -> dict[str, Any]:
    """Return the fields of a `Record` when a run ends; `device` is what `device_record` gave before it."""
    return {
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([script, *(sys.argv[1:] if arguments is None else arguments)]),
        "tools": tool_versions(),
        "device": device,
        "device_after": device_record(),
    }


def write_record(record: Record, tables: str, output: Path) -> None:
    """Write NAME.json, and the tables beside it as NAME.md."""
    write_whole(output, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    write_whole(output.with_suffix(".md"), tables.encode())
