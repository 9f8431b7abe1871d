"""The calibration table as a file: where it stands in a bundle, and reading it again."""

from __future__ import annotations

from pathlib import Path

from ran_deploy.bundle import open_bundle
from ran_deploy.calibration import CalibrationTable, table_from_json
from ran_deploy.errors import CalibrationError

__all__ = ["CALIBRATION_FILE", "read_table"]

CALIBRATION_FILE = "calibration.json"


def read_table(path: Path) -> CalibrationTable:
    """Return the calibration table of a calibration.json, or of the bundle that stands at `path`.

    Raises: CalibrationError if there is none; BundleError if the bundle is damaged.
    """
    if path.is_dir() or path.suffix == ".zip":
        bundle = open_bundle(path)
        if CALIBRATION_FILE not in bundle:
            raise CalibrationError(f"Bundle {path} is not INT8 and holds no {CALIBRATION_FILE}; calibrate instead.")
        return table_from_json(bundle.read(CALIBRATION_FILE), f"{path}/{CALIBRATION_FILE}")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise CalibrationError(f"Cannot read the calibration table {path}: {exc.strerror}.") from exc
    return table_from_json(data, str(path))
