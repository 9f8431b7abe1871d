"""Calibration: how large activations get on real images, and the table that keeps it."""

from ran_deploy.calibration.channels import ChannelSizes, collect_channel_sizes
from ran_deploy.calibration.collect import Ranges, RangesByImages, collect_ranges, halvings, sum_outputs
from ran_deploy.calibration.methods import RANGE_RULES, CalibrationMethod
from ran_deploy.calibration.stability import describe_stability, has_settled, range_changes
from ran_deploy.calibration.table import CalibrationTable, data_digest, table_from_json, table_to_json

__all__ = [
    "RANGE_RULES",
    "CalibrationMethod",
    "CalibrationTable",
    "ChannelSizes",
    "Ranges",
    "RangesByImages",
    "collect_channel_sizes",
    "collect_ranges",
    "data_digest",
    "describe_stability",
    "halvings",
    "has_settled",
    "range_changes",
    "sum_outputs",
    "table_from_json",
    "table_to_json",
]
