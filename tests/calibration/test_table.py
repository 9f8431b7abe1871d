"""A calibration table survives JSON bit for bit and refuses another network, other images and damage."""

from __future__ import annotations

import hashlib
import json

import pytest

from ran_deploy.calibration import CalibrationMethod, CalibrationTable, data_digest, table_from_json, table_to_json
from ran_deploy.errors import CalibrationError

MODEL, DATA = "a1" * 32, "d4" * 32


@pytest.fixture
def table() -> CalibrationTable:
    ranges = {"z/conv": 0.1 + 0.2, "a/conv": 1e-300, "never used": 0.0}
    return CalibrationTable(
        method=CalibrationMethod.PERCENTILE, ranges=ranges, model_sha256=MODEL, images=512, data_sha256=DATA
    )


def test_json_keeps_every_bit_and_the_order(table):
    read = table_from_json(table_to_json(table), "calibration.json")
    assert read == table
    assert list(read.ranges) == list(table.ranges)


def test_its_own_network_and_images_are_accepted(table):
    table.require(model_sha256=MODEL, data_sha256=DATA)


def test_another_network_is_refused(table):
    with pytest.raises(CalibrationError, match=r"another network \(sha256 a1a1a1a1a1a1\.\.\., this one has bb"):
        table.require(model_sha256="bb" * 32, data_sha256=DATA)


def test_other_images_are_refused(table):
    with pytest.raises(CalibrationError, match=r"other images \(512 images, sha256 d4d4d4d4d4d4\.\.\., these have cc"):
        table.require(model_sha256=MODEL, data_sha256="cc" * 32)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"percentile", b"guesswork"),
        lambda data: data.replace(b'"images": 512', b'"images": "many"'),
        lambda data: data.replace(b'"ranges"', b'"rangos"'),
        lambda data: data.replace(b'"sha256"', b'"sha"'),
        lambda data: data.replace(b"1e-300", b"-1.0"),
        lambda data: data.replace(b"never", b"\xff\xfe"),
        lambda data: b"",
        lambda data: b"[]",
    ],
)
def test_damage_is_refused_by_name(table, damage):
    data = table_to_json(table)
    assert damage(data) != data
    with pytest.raises(CalibrationError, match=r"^calibration\.json is no calibration table"):
        table_from_json(damage(data), "calibration.json")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"0.30000000000000004", b"0.3"),
        (b'"images": 512', b'"images": 51'),
        (b'"percentile"', b'"minmax"'),
        (b"d4d4", b"d5d4"),
        (b'    "a/conv": 1e-300,\n', b""),
        (b'"sha256": "', b'"sha256": "0'),
    ],
)
def test_a_table_that_was_edited_is_refused(table, before, after):
    data = table_to_json(table)
    assert before in data
    with pytest.raises(CalibrationError, match=r"^calibration\.json was changed after it was made"):
        table_from_json(data.replace(before, after, 1), "calibration.json")


def test_a_table_laid_out_anew_is_still_the_same(table):
    compact = json.dumps(json.loads(table_to_json(table))).encode()
    assert table_from_json(compact, "calibration.json") == table


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0])
def test_a_range_that_is_no_magnitude_is_refused(limit):
    with pytest.raises(CalibrationError, match="range of 'conv'"):
        CalibrationTable(
            method=CalibrationMethod.MINMAX, ranges={"conv": limit}, model_sha256=MODEL, images=1, data_sha256=DATA
        )


def test_data_digest_is_that_of_the_sorted_image_digests():
    assert data_digest(["bb", "aa"]) == hashlib.sha256(b"aa\nbb").hexdigest()
    assert data_digest(iter(["aa", "bb"])) == data_digest(["bb", "aa"])
    assert data_digest(["aa"]) != data_digest(["aa", "aa"])
