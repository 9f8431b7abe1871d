"""Names find their labels however either is spelt, and never the wrong one."""

from __future__ import annotations

import unicodedata

import pytest

from ran_deploy.datasets.class_names import numbers_by_name

SPELLINGS = {
    "exact": ("Ankle boot", ("bag", "Ankle boot")),
    "case and separators": ("ankle-BOOT", ("bag", "Ankle_boot")),
    "decomposed by the file system": (unicodedata.normalize("NFD", "Rehkäse"), ("bag", "rehkäse")),
    "leading zeros": ("007", ("6", "7")),
    "WordNet id alone": ("n01443537", ("n01440764 tench", "n01443537 goldfish")),
    "WordNet id with a name": ("n02085620-Chihuahua", ("n02085782", "n02085620")),
    "name behind a WordNet id": ("n02085620-Chihuahua", ("Japanese spaniel", "chihuahua")),
    "one of several synonyms": ("Carassius auratus", ("tench, Tinca tinca", "goldfish, Carassius auratus")),
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_a_name_is_found_as(case):
    name, labels = SPELLINGS[case]
    assert numbers_by_name([name], labels) == {name: 1}


UNKNOWN = {
    "another name": ("cat", ("cats", "dog")),
    "two labels that differ in separators": ("a b", ("a-b", "a_b")),
    "a label that occurs twice": ("crane", ("crane", "crane")),
    "no letter or digit": ("--", ("+", "-")),
    "a longer number behind n": ("n014407641", ("n01440764", "x")),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_name_is_not_found_for(case):
    name, labels = UNKNOWN[case]
    assert numbers_by_name([name], labels) == {}


def test_an_exact_label_is_found_beside_one_that_differs_in_separators():
    assert numbers_by_name(["a_b", "C", "C++"], ["a-b", "a_b", "C++", "C"]) == {"a_b": 1, "C": 3, "C++": 2}
