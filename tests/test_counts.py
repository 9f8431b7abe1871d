from __future__ import annotations

import pytest

from ran_deploy.counts import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 classes"), (1, "1 class"), (2, "2 classes"), (1_200_000, "1,200,000 classes")]
)
def test_one_is_singular_and_thousands_are_set_apart(count, text):
    assert counted(count, "class", "classes") == text
    assert counted(count, "image") == text.replace("class", "image").replace("imagees", "images")
