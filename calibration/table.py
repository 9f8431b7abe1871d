"""The calibration table: ranges by tensor name, bound to the network and the images they were measured with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from ran_deploy.calibration.methods import CalibrationMethod
from ran_deploy.counts import counted
from ran_deploy.errors import CalibrationError
from ran_deploy.manifest import RangeChange

__all__ = ["CalibrationTable", "data_digest", "table_from_json", "table_to_json"]


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """max |x| of each tensor. `model_sha256` is the float graph's; `data_sha256` comes from `data_digest`.

    `stability` and `chosen` are as in the manifest's CalibrationRecord.
    """

    method: CalibrationMethod
    ranges: dict[str, float]
    model_sha256: str
    images: int
    data_sha256: str
    stability: tuple[RangeChange, ...] = ()
    chosen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limit in self.ranges.items():
            if not (math.isfinite(limit) and limit >= 0):
                raise CalibrationError(
                    f"The calibrated range of {name!r} is {limit}; a number from 0 up is needed. Calibrate again."
                )

    def require(self, *, model_sha256: str, data_sha256: str) -> None:
        """Check that the table is of this network and these images. Raises: CalibrationError saying which is not."""
        if model_sha256 != self.model_sha256:
            raise CalibrationError(
                f"The calibration table belongs to another network (sha256 {self.model_sha256[:12]}..., this one has "
                f"{model_sha256[:12]}...). Its ranges do not fit: leave --calibration-table out to calibrate this one."
            )
        if data_sha256 != self.data_sha256:
            raise CalibrationError(
                f"The calibration table was made with other images ({counted(self.images, 'image')}, sha256 "
                f"{self.data_sha256[:12]}..., these have {data_sha256[:12]}...). Give the same data, number and "
                "recipe, or leave --calibration-table out."
            )


def data_digest(image_digests: Iterable[str]) -> str:
    """Return one SHA-256 for a set of images as the network gets them, in any order, from their hexadecimal digests."""
    return hashlib.sha256("\n".join(sorted(image_digests)).encode("ascii")).hexdigest()


class _Seal(msgspec.Struct):
    sha256: str


def table_to_json(table: CalibrationTable) -> bytes:
    """Return the table as indented JSON, with the digest of its content; floats survive bit for bit."""
    content = {"sha256": _digest(table), **msgspec.to_builtins(table)}
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def table_from_json(data: bytes, origin: str) -> CalibrationTable:
    """Return the table `data` holds. Raises: CalibrationError, naming `origin`, if it is damaged or was edited."""
    try:
        table = msgspec.json.decode(data, type=CalibrationTable)
        seal = msgspec.json.decode(data, type=_Seal)
    except (msgspec.MsgspecError, UnicodeDecodeError, CalibrationError) as exc:
        raise CalibrationError(f"{origin} is no calibration table ({exc}). It is damaged: calibrate again.") from exc
    if seal.sha256 != _digest(table):
        raise CalibrationError(
            f"{origin} was changed after it was made: its content has sha256 {_digest(table)[:12]}..., "
            f"{seal.sha256[:12]!r}... is written in it. Its ranges were not all measured: calibrate again."
        )
    return table


def _digest(table: CalibrationTable) -> str:
    return hashlib.sha256(msgspec.json.encode(table)).hexdigest()
