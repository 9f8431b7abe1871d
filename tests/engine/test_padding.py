from __future__ import annotations

import pytest

from ran_deploy.engine.padding import Padding, every_padding, padded_size
from ran_deploy.manifest import BatchProfile


def profile(minimum: int, optimum: int, maximum: int) -> BatchProfile:
    return BatchProfile(minimum=minimum, optimum=optimum, maximum=maximum)


def test_sizes_between_powers_of_two_are_padded_to_the_next():
    pairs = [(each.least, each.size) for each in every_padding(profile(1, 8, 32))]
    assert pairs == [(3, 4), (5, 8), (9, 16), (17, 32)]


@pytest.mark.parametrize("sizes", [profile(1, 8, 32), profile(3, 6, 20), profile(1, 1, 100), profile(5, 5, 7)])
def test_each_batch_runs_at_the_smallest_step_that_holds_it_and_no_larger_one_than_there_is(sizes):
    steps = {2**k for k in range(12)} | {sizes.minimum, sizes.optimum, sizes.maximum}
    for batch in range(sizes.minimum, sizes.maximum + 1):
        assert padded_size(every_padding(sizes), batch) == min(step for step in steps if step >= batch)


def test_an_engine_of_one_size_fills_nothing_up():
    assert every_padding(profile(4, 4, 4)) == ()


def test_only_what_is_named_is_padded():
    padding = (Padding(least=3, size=4), Padding(least=7, size=8))
    assert [padded_size(padding, batch) for batch in range(1, 11)] == [1, 2, 4, 4, 5, 6, 8, 8, 9, 10]
