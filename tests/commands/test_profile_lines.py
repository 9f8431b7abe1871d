from __future__ import annotations

import pytest

from ran_deploy.commands.profile_lines import profile_lines
from ran_deploy.network_parts import Part
from ran_deploy.runtime.timing import Timing
from ran_deploy.workflows.profile import EngineProfile, Layer, module_totals, part_totals

WEIGHS = "short layers weigh too much here"


def profile(*, unprofiled_ms: float) -> EngineProfile:
    """Return a profile of three layers that take 8 ms of a run of 10 ms, the second one without a known module."""
    places = [
        ("stem.0", Part.STEM, "", 40, 2.0),
        ("", Part.CONVERSIONS, "", 0, 1.0),
        ("m.0", Part.MASK, "one", 60, 5.0),
    ]
    layers = tuple(
        Layer(
            name=f"layer{number}\x1b", kind="Conv", execution="int8", nodes=(), path=path, part=part, module=module,
            multiply_adds=arithmetic, ms=ms,
        )
        for number, (path, part, module, arithmetic, ms) in enumerate(places)
    )  # fmt: skip
    return EngineProfile(
        backend="openvino",
        batch=4,
        runs=1,
        statistic="median",
        unprofiled_ms=Timing((unprofiled_ms,)).latency_ms,
        profiled_ms=Timing((10.0,)).latency_ms,
        noisy=False,
        layers_ms=8.0,
        parts=part_totals(layers),
        modules=module_totals(layers),
        parts_missing=None,
        layers=layers,
    )


def test_parts_modules_and_layers_are_listed_the_longest_first():
    lines = profile_lines(profile(unprofiled_ms=9.0))
    assert lines[:2] == [
        "openvino, batch 4: 9.00 ms; with profiling 10.00 ms (+11%), medians",
        "3 layers take 8.00 of 10.00 ms with profiling, each the median of 1 run",
    ]
    rows = [line.split() for line in lines]
    assert ["soft", "mask", "5.000", "62.5%", "60.0%", "1"] in rows
    assert ["conversions", "1.000", "12.5%", "1"] in rows
    assert ["one", "0.000", "5.000", "0.000", "0.000"] in rows
    longest = rows[rows.index(["longest", "layers,", "ms", "share"]) + 1 :]
    assert [row[0] for row in longest] == ["5.000", "2.000", "1.000"]
    assert longest[2][3] == "layer1\\x1b"  # its name where no module is known, and nothing that steers the terminal
    assert longest[0][3:] == ["m.0", "soft", "mask", "int8"]


@pytest.mark.parametrize(("unprofiled_ms", "said"), [(9.0, False), (8.0, False), (7.0, True)])
def test_a_profiler_that_outweighs_the_layers_is_told(unprofiled_ms, said):
    assert any(WEIGHS in line for line in profile_lines(profile(unprofiled_ms=unprofiled_ms))) is said
