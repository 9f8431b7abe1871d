"""Calibration: how large activations get on real images, and the table that keeps it."""

from ran_deploy.calibration.collect import collect_ranges
from ran_deploy.calibration.observers import CalibrationMethod
from ran_deploy.calibration.table import CalibrationTable, data_digest, table_from_json, table_to_json

__all__ = [
    "CalibrationMethod",
    "CalibrationTable",
    "collect_ranges",
    "data_digest",
    "table_from_json",
    "table_to_json",
]
