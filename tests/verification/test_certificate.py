from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import beta

from ran_deploy.verification.certificate import certify, is_decided
from ran_deploy.verification.sequential import anytime_upper


def test_the_share_that_changes_bounds_the_drop_whatever_the_labels(rng):
    for classes in (2, 3, 10):
        reference = rng.integers(classes, size=500)
        engine = np.where(rng.random(500) < 0.2, rng.integers(classes, size=500), reference)
        changed = (reference != engine).sum()
        for labels in (rng.integers(classes, size=500), reference, engine, (reference + 1) % classes):
            drop = (reference == labels).sum() - (engine == labels).sum()
            assert abs(drop) <= changed
        assert 500 - (engine == reference).sum() == changed  # where the reference is always right the bound is reached


def test_without_a_budget_the_bound_is_the_exact_one_of_a_single_look():
    certificate = certify(2, 1342, available=1342, seed=0, max_drop_pp=None)
    assert certificate.bound_percent == pytest.approx(100 * beta.ppf(0.95, 3, 1340), rel=1e-8)
    assert (certificate.anytime, certificate.proven, certificate.images_needed) == (False, None, None)
    assert certificate.text == (
        "After all 1,342 images (order by seed 0) 2 change class; with 95 % confidence at most 0.47 % of images like "
        "these do, so top-1 accuracy drops by at most 0.47 points; no budget was set (--max-drop)."
    )


def test_a_proven_budget_comes_with_the_bound_that_holds_at_every_look():
    certificate = certify(1, 1400, available=9000, seed=7, max_drop_pp=0.6)
    assert certificate.proven
    assert certificate.bound_percent == 100 * anytime_upper(1, 1400) < 0.6
    assert certificate.text.startswith("After 1,400 images (order by seed 7) 1 changes class; with 95 % confidence")
    assert certificate.text.endswith("points: the budget of 0.6 is proven.")


def test_bounds_are_rounded_to_the_side_on_which_they_hold():
    for changed, images in [(0, 700), (1, 1234), (9, 4000), (0, 123_456)]:
        certificate = certify(changed, images, available=images, seed=0, max_drop_pp=None)
        (written,) = set(re.findall(r"at most ([\d.]+) ", certificate.text))
        assert certificate.bound_percent <= float(written) < 1.1 * certificate.bound_percent


def test_what_is_written_of_a_proven_bound_never_exceeds_the_budget():
    budget = 100 * anytime_upper(1, 1400) + 1e-6
    certificate = certify(1, 1400, available=1400, seed=0, max_drop_pp=budget)
    assert certificate.proven
    assert f"at most {budget:g} points" in certificate.text


def test_what_is_within_the_budget_but_not_proven_says_how_many_more_images_would_do():
    certificate = certify(0, 512, available=512, seed=0, max_drop_pp=0.5)
    assert certificate.proven is False
    assert certificate.images_needed is not None
    needed = certificate.images_needed
    assert anytime_upper(0, needed) <= 0.005 < anytime_upper(0, needed - 1)
    (more,) = re.findall(r"not proven: about ([\d,]+) more images would do", certificate.text)
    assert needed - 512 <= int(more.replace(",", "")) < needed - 512 + 10


def test_a_share_above_the_budget_is_no_matter_of_more_images():
    certificate = certify(6, 1000, available=1000, seed=0, max_drop_pp=0.5)
    assert (certificate.proven, certificate.images_needed) == (False, None)
    assert "0.6 % of these change, and at that share no number of images proves it" in certificate.text
    assert "Labelled images may still" in certificate.text


def test_a_rate_shown_to_be_above_the_budget_is_said_with_its_lower_bound():
    certificate = certify(40, 1000, available=10_000, seed=0, max_drop_pp=0.5)
    assert certificate.at_least_percent > 0.5
    (least,) = re.findall(r"more than ([\d.]+) % change", certificate.text)
    assert 0.98 * certificate.at_least_percent < float(least) <= certificate.at_least_percent


@pytest.mark.parametrize(
    ("changed", "images", "decided"), [(0, 736, True), (0, 640, False), (3, 1000, False), (40, 1000, True)]
)
def test_the_test_ends_when_the_budget_is_proven_or_out_of_reach(changed, images, decided):
    assert is_decided(changed, images, 0.5) is decided
