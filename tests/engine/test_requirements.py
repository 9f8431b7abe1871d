from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from ran_deploy.engine.requirements import at_least, is_range, meets, meets_so_far, misfits, same_major_from

VERSIONS = ["7.5", "8.0", "8.6", "9.0", "10.2.9", "10.3", "10.3.0", "10.3.0.26", "10.16.1", "11", "11.0", "11.4.0.106"]


@pytest.mark.parametrize("required", [at_least("8.0"), at_least("10.3.0.26"), same_major_from("10.3.0"), ">=11,<12"])
@pytest.mark.parametrize("found", VERSIONS)
def test_ranges_are_judged_as_packaging_judges_them(found, required):
    assert meets(found, required) == (found in SpecifierSet(required))


def test_a_version_compatible_engine_asks_for_its_own_major_version():
    assert same_major_from("10.3.0.26") == ">=10.3.0.26,<11"


@pytest.mark.parametrize("found", [None, "", "unknown", "Orin", "10.x", ">=8.0"])
def test_what_is_no_version_is_in_no_range(found):
    assert not meets(found, at_least("8.0"))


@pytest.mark.parametrize("value", ["10.3.0", "Linux x86_64", "NVIDIA GeForce RTX 4090", "", "~=10.3", ">=8.0,Orin"])
def test_a_value_that_is_no_range_is_met_by_itself_alone(value):
    assert not is_range(value)
    assert meets(value, value)
    assert not meets(value + ".1", value)


@pytest.mark.parametrize("required", [">=10.3.0.26,<11", ">=8.0", ">=10.3,<10.5"])
@pytest.mark.parametrize("known", [(8,), (10,), (10, 2), (10, 3), (10, 3, 0), (10, 3, 1), (10, 4), (10, 16), (11, 0)])
def test_a_version_known_in_part_is_judged_as_all_that_begin_so(known, required):
    tails = ["", ".0", ".1", ".3", ".3.0.25", ".3.0.26", ".0.25", ".0.26", ".26", ".27", ".4", ".9"]
    verdicts = {meets(".".join(map(str, known)) + tail, required) for tail in tails}
    assert meets_so_far(known, required) == (verdicts.pop() if len(verdicts) == 1 else None)


@pytest.mark.parametrize(
    ("known", "verdict"), [((10, 3), None), ((10, 3, 0, 26), True), ((10, 4), False), ((10, 30), False)]
)
def test_an_exact_version_known_in_part_may_still_be_another(known, verdict):
    assert meets_so_far(known, "10.3.0.26") is verdict


def test_an_engine_for_dla_is_for_devices_asked_for_it_and_no_other_engine_is():
    gpu = {"tensorrt": "10.3.0", "GPU": "Orin"}
    dla = {**gpu, "accelerator": "DLA"}
    assert misfits(gpu, gpu) == misfits(dla, dla) == []
    assert misfits(dla, gpu) == ["accelerator is none here; the engine was built for DLA"]
    assert misfits(gpu, dla) == ["accelerator is DLA here; the engine was built for none"]


def test_misfits_says_what_differs_and_nothing_else():
    built = {"OpenVINO": "2026.4", "platform": "Linux x86_64", "GPU": "Orin", "compute capability": ">=8.0"}
    here = {"OpenVINO": "2026.3", "platform": "Linux x86_64", "driver": "13.0", "compute capability": "7.5"}
    assert misfits(built, here) == [
        "OpenVINO is 2026.3 here; the engine was built for 2026.4",
        "GPU is unknown here; the engine was built for Orin",
        "compute capability is 7.5 here; the engine was built for >=8.0",
    ]
