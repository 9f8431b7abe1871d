from __future__ import annotations

import pytest

from ran_deploy.converters.builders.phases import Phases


def test_a_phase_is_a_part_of_one_step_of_its_parent():
    phases = Phases()
    phases.start("build", None, 4)
    assert phases.complete("build", 0) == pytest.approx(1 / 4)
    phases.start("time", "build", 5)
    assert phases.complete("time", 1) == pytest.approx((1 + 2 / 5) / 4)
    phases.start("layer", "time", 2)
    assert phases.complete("layer", 0) == pytest.approx((1 + (2 + 1 / 2) / 5) / 4)
    phases.finish("layer")
    phases.finish("time")
    assert phases.complete("build", 1) == pytest.approx(2 / 4)
    assert phases.complete("build", 3) == 1


def test_the_share_never_falls_even_where_phases_repeat():
    phases = Phases()
    phases.start("build", None, 2)
    shares = []
    for _ in range(3):
        phases.start("time", "build", 10)
        shares += [phases.complete("time", step) for step in range(10)]
        phases.finish("time")
    assert shares == sorted(shares)
    assert max(shares) == pytest.approx(1 / 2)


def test_odd_reports_do_no_harm():
    phases = Phases()
    assert phases.complete("never started", 3) == 0
    phases.start("empty", "nobody", 0)
    assert phases.complete("empty", 7) == 1
    phases.start("own parent", "own parent", 3)
    assert phases.complete("own parent", 0) == 1
    phases.finish("never started")
