"""Everything a user can cause, as one small tree of exceptions.

Each message says what was found, what was expected and what to do. The command line prints them without a traceback
and exits with `exit_status`; any other exception is a bug of ours.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "BudgetError",
    "BuildError",
    "BundleError",
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "ConversionError",
    "DatasetError",
    "DeviceError",
    "EngineMismatchError",
    "InputError",
    "OutputError",
    "RanDeployError",
    "SelfTestError",
    "ShapeError",
]


class RanDeployError(Exception):
    """Base class; exit status 2: usage or environment."""

    exit_status = 2


class ConfigError(RanDeployError):
    """An option has a value that cannot work."""


class CheckpointError(RanDeployError):
    """A checkpoint cannot be read or is of no known layout."""


class DatasetError(RanDeployError):
    """A data set is missing, empty, damaged or overlaps another one."""


class CalibrationError(RanDeployError):
    """Calibration data or a calibration table cannot be used."""


class ConversionError(RanDeployError):
    """A network cannot be exported or a graph cannot be rewritten faithfully."""


class BuildError(RanDeployError):
    """A vendor's builder refused a graph."""


class BackendUnavailableError(RanDeployError):
    """A backend's package, library or device is missing here."""


class DeviceError(RanDeployError):
    """A GPU call failed: out of memory, a lost device."""


class BundleError(RanDeployError):
    """A bundle is damaged, incomplete or of an unknown schema."""


class OutputError(RanDeployError):
    """A result cannot be written where it was asked for."""


class InputError(RanDeployError):
    """One input (an image, an array) cannot be used; the pipeline records it and goes on."""

    exit_status = 1


class ShapeError(InputError):
    """An array has the wrong name, shape or type."""


class EngineMismatchError(RanDeployError):
    """An engine was made for another machine or version."""

    exit_status = 3


class SelfTestError(RanDeployError):
    """An engine's outputs differ from the recorded ones: it must not be used."""

    exit_status = 1


class BudgetError(RanDeployError):
    """No network that may be exported is shown to be within the accuracy budget."""

    exit_status = 1
