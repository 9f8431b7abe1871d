"""A manifest for tests that are not about what a bundle holds."""

from __future__ import annotations

from typing import Any

from ran_deploy.manifest import BatchProfile, CheckpointRecord, GoldenRecord, Manifest, Task
from ran_deploy.precision import Precision
from ran_deploy.preprocessing import Preprocessing


def manifest(**changes: Any) -> Manifest:
    """Return it with `changes`."""
    values = {
        "name": "sorter",
        "task": Task.CLASSIFICATION,
        "architecture": "attention-56",
        "output_size": 10,
        "labels": None,
        "preprocessing": Preprocessing(crop=(31, 33), resize=40),
        "preprocessing_source": "test",
        "precision": Precision.INT8,
        "kept_in_float": {},
        "checkpoint": CheckpointRecord(file_name="x.pth", sha256="0", layout="authors", parameters=1),
        "calibration": None,
        "golden": GoldenRecord(inputs=32, source="synthetic"),
        "dialects": {},
        "engines": (),
        "batch": BatchProfile(),
        "tools": {},
        "files": {},
        "created": "2026-01-01T00:00:00Z",
    }
    return Manifest(**{**values, **changes})
